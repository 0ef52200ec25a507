"""Who may connect to whom: nobody, but for those whom a rule beside an RPC names."""

from __future__ import annotations

from deploy.calls import EDGE, GATEWAY, PROCESSES, SERVICES, callees_of, callers_of
from deploy.envoy.settings import EDGE_PORT, MESH_PORT, PROBE_PORT, REDIRECT_PORT
from deploy.k8s.jobs import CRON, MIGRATION
from deploy.k8s.parts import IDENTITY, Manifest, manifest, of_process

# Where MySQL and Redis are; overlays name the very networks.
PRIVATE = "10.0.0.0/8"
_DATABASE, _REDIS, _COLLECTOR, _DNS = 3306, 6379, 4317, 53
_OURS = (EDGE, CRON, *PROCESSES)


def policies() -> list[Manifest]:
    """A policy that denies all, and one for each process that allows what it needs."""
    return [
        manifest(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "deny-all",
            spec={"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
        ),
        *(_policy(process) for process in (EDGE, CRON, MIGRATION, *PROCESSES)),
    ]


def _policy(identity: str) -> Manifest:
    return manifest(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        identity,
        spec={
            "podSelector": of_process(identity),
            "policyTypes": ["Ingress", "Egress"],
            "ingress": _ingress(identity),
            "egress": _egress(identity),
        },
    )


def _ingress(identity: str) -> list[Manifest]:
    if identity in (CRON, MIGRATION):
        return []
    scrapers = {"from": [_namespace("monitoring")], "ports": [_port(PROBE_PORT)]}
    if identity == EDGE:
        everyone = {"ports": [_port(EDGE_PORT), _port(REDIRECT_PORT)]}
        return [everyone, scrapers]
    callers = {
        "from": [_pods_with(caller) for caller in callers_of(identity)],
        "ports": [_port(MESH_PORT)],
    }
    return [callers, scrapers]


def _egress(identity: str) -> list[Manifest]:
    dns = {
        "to": [_namespace("kube-system")],
        "ports": [_port(_DNS, "UDP"), _port(_DNS)],
    }
    allowed = [dns]
    callees = callees_of(identity)
    if callees:
        allowed.append(
            {
                "to": [{"podSelector": of_process(callee)} for callee in callees],
                "ports": [_port(MESH_PORT)],
            }
        )
    private = [{"ipBlock": {"cidr": PRIVATE}}]
    if identity in SERVICES:
        allowed.append({"to": private, "ports": [_port(_DATABASE), _port(_REDIS)]})
    if identity == MIGRATION:
        allowed.append({"to": private, "ports": [_port(_DATABASE)]})
    if identity in (EDGE, GATEWAY, *SERVICES):
        allowed.append({"to": [_namespace("monitoring")], "ports": [_port(_COLLECTOR)]})
    return allowed


def _pods_with(caller: str) -> Manifest:
    """Pods of an identity: ours, or of the shop's own services in a namespace that says so."""
    selected: Manifest = {"podSelector": {"matchLabels": {IDENTITY: caller}}}
    if caller not in _OURS:
        selected["namespaceSelector"] = {"matchLabels": {"shoptrail/calls": "true"}}
    return selected


def _namespace(name: str) -> Manifest:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _port(number: int, protocol: str = "TCP") -> Manifest:
    return {"port": number, "protocol": protocol}
