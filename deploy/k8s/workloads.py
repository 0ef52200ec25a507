"""Edge, gateway and services: what runs all the time."""

from __future__ import annotations

from deploy.calls import EDGE, GATEWAY, PROCESSES, SERVICES
from deploy.envoy.settings import (
    APPLICATION_PORT,
    COLLECTOR,
    EDGE_PORT,
    EGRESS_PORTS,
    MESH_PORT,
    METRICS_PORT,
    PROBE_PORT,
    REDIRECT_PORT,
)
from deploy.k8s.parts import (
    ENVOY_IMAGE,
    IMAGE,
    TLS_MOUNT,
    Manifest,
    container,
    labels,
    manifest,
    of_process,
    pod,
    tls_variables,
    tls_volume,
)

_LOCAL = f"127.0.0.1:{APPLICATION_PORT}"
_TEMPORARY = {"name": "temporary", "mountPath": "/tmp"}  # noqa: S108 - of a read-only system
# More than a process takes to say that it leaves, and to finish: 5 s each, and the proxy after it.
_GRACE_SECONDS = 40
_MOST_REPLICAS = 20
# What a replica of these accepted while the database was away is on its disk, and nowhere else.
_WITH_DISK = ("ingest",)
_DISK = {"name": "journal", "mountPath": "/var/lib/shoptrail"}
_JOURNAL_BYTES = 1024**3
# Besides the journal there is room for what of it can't be read and is set aside.
_DISK_SIZE = "4Gi"
# A copy, which goes with its pod: a new one makes its own.
_COLUMNS = {"name": "columns", "mountPath": "/var/lib/shoptrail"}
_COLUMNS_SIZE = "20Gi"
# So long a replica is well before the next one goes: more than its callers take to hear of it.
_SETTLING_SECONDS = 10


def workloads() -> list[Manifest]:
    """Everything that the processes need to run and to be found."""
    made = []
    for process in (EDGE, *PROCESSES):
        made += [
            manifest("v1", "ServiceAccount", process, automountServiceAccountToken=False),
            _replicas(process),
            _service(process),
            _disruption_budget(process),
            _scaler(process),
        ]
    return made


def _replicas(process: str) -> Manifest:
    template = _edge_pod() if process == EDGE else _process_pod(process)
    template["metadata"]["annotations"] = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(PROBE_PORT),
        "prometheus.io/path": "/stats/prometheus" if process == EDGE else "/metrics",
    }
    # The number of replicas is the scaler's.
    common = {"revisionHistoryLimit": 5, "selector": of_process(process), "template": template}
    if process in _WITH_DISK:
        return _stateful_set(process, common)
    return manifest(
        "apps/v1",
        "Deployment",
        process,
        spec={
            **common,
            # A pod goes only when another has come.
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
            },
        },
    )


def _stateful_set(process: str, common: Manifest) -> Manifest:
    """Replicas with names, each with a disk that waits for it while it is away."""
    claim = {
        "metadata": {"name": _DISK["name"]},
        "spec": {
            "accessModes": ["ReadWriteOncePod"],
            "resources": {"requests": {"storage": _DISK_SIZE}},
        },
    }
    return manifest(
        "apps/v1",
        "StatefulSet",
        process,
        spec={
            **common,
            "serviceName": process,
            # One that doesn't start keeps the others from nothing, nor a release from being
            # taken back.
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate"},
            "minReadySeconds": _SETTLING_SECONDS,
            "volumeClaimTemplates": [claim],
            # A journal may hold events when its replica goes. Only a person removes it.
            "persistentVolumeClaimRetentionPolicy": {
                "whenDeleted": "Retain",
                "whenScaled": "Retain",
            },
        },
    )


def _process_pod(process: str) -> Manifest:
    return pod(
        process,
        labels=labels(process),
        terminationGracePeriodSeconds=_GRACE_SECONDS,
        topologySpreadConstraints=_spread(process),
        # A sidecar of Kubernetes: up before the process, down after it.
        initContainers=[_proxy(process, restartPolicy="Always")],
        containers=[_process_container(process)],
        volumes=[
            *_volumes(process),
            _empty(_TEMPORARY, "1Gi"),
            *([_empty(_COLUMNS, _COLUMNS_SIZE)] if process == "query" else []),
        ],
    )


def _process_container(process: str) -> Manifest:
    module = process if process == GATEWAY else f"services.{process}"
    if process == GATEWAY:
        alive: Manifest = {"httpGet": {"path": "/healthz", "port": PROBE_PORT}}
        ready: Manifest = {"httpGet": {"path": "/readyz", "port": PROBE_PORT}}
    else:
        alive = ready = {"grpc": {"port": PROBE_PORT}}
    return container(
        process,
        IMAGE,
        [module],
        cpu="500m",
        memory="1Gi" if process == "query" else "512Mi",
        env=_variables(process),
        envFrom=[{"secretRef": {"name": process}}],
        startupProbe={**alive, "periodSeconds": 2, "failureThreshold": 60},
        # Through the proxy, and asking nobody else: a database that is away is no reason to die.
        livenessProbe={**alive, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        readinessProbe={**ready, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2},
        volumeMounts=[
            TLS_MOUNT,
            _TEMPORARY,
            *([_DISK] if process in _WITH_DISK else []),
            *([_COLUMNS] if process == "query" else []),
        ],
    )


def _variables(process: str) -> list[Manifest]:
    prefix = process.upper()
    values = {
        "LISTEN_ADDRESS": _LOCAL,
        "BEHIND_PROXY": "true",
        # Which requests are traced the edge has decided.
        "TRACES_ENDPOINT": f"http://{COLLECTOR}",
    }
    if process == GATEWAY:
        values["TRUSTED_PROXIES"] = "127.0.0.1/32"
    else:
        values["METRICS_ADDRESS"] = f"127.0.0.1:{METRICS_PORT}"
    if process in _WITH_DISK:
        # A directory in it, since the disk's own belongs to root.
        values["JOURNAL_DIRECTORY"] = f"{_DISK['mountPath']}/journal"
        values["JOURNAL_BYTES"] = str(_JOURNAL_BYTES)
    if process == "query":
        values["COLUMNS_PATH"] = f"{_COLUMNS['mountPath']}/columns.duckdb"
        # Of the container's gigabyte. Under load the process takes 350 MiB besides.
        values["COLUMNS_MEMORY_MIB"] = "384"
    called = {
        GATEWAY: SERVICES,
        "ingest": ("keys",),
        "query": ("ingest", "keys"),
        "maintenance": ("ingest", "query", "keys"),
    }
    for service in called.get(process, ()):
        values[f"{service.upper()}_ADDRESS"] = f"127.0.0.1:{EGRESS_PORTS[service]}"
    return [
        *({"name": f"{prefix}_{name}", "value": value} for name, value in values.items()),
        *tls_variables(prefix),
    ]


def _proxy(process: str, **fields: str) -> Manifest:
    ready = {"httpGet": {"path": "/ready", "port": PROBE_PORT}}
    return container(
        "envoy",
        ENVOY_IMAGE,
        ["-c", f"/etc/envoy/{process}.yaml", "--disable-hot-restart"],
        cpu="500m" if process == EDGE else "200m",
        memory="768Mi",
        startupProbe={**ready, "periodSeconds": 1, "failureThreshold": 30},
        livenessProbe={**ready, "periodSeconds": 10, "failureThreshold": 3},
        readinessProbe={**ready, "periodSeconds": 2, "failureThreshold": 2},
        volumeMounts=[
            TLS_MOUNT,
            {"name": "envoy", "mountPath": "/etc/envoy", "readOnly": True},
        ],
        **fields,
    )


def _edge_pod() -> Manifest:
    envoy = _proxy(EDGE)
    public = {"name": "public-tls", "mountPath": "/etc/shoptrail/public-tls", "readOnly": True}
    envoy["volumeMounts"].append(public)
    envoy["ports"] = [
        {"name": "https", "containerPort": EDGE_PORT},
        {"name": "http", "containerPort": REDIRECT_PORT},
    ]
    # Until the load balancer sends no more.
    envoy["lifecycle"] = {"preStop": {"sleep": {"seconds": 25}}}
    secret = {"secretName": "public-tls", "defaultMode": 0o440}
    return pod(
        EDGE,
        labels=labels(EDGE),
        terminationGracePeriodSeconds=_GRACE_SECONDS,
        topologySpreadConstraints=_spread(EDGE),
        containers=[envoy],
        volumes=[*_volumes(EDGE), {"name": "public-tls", "secret": secret}],
    )


def _volumes(process: str) -> list[Manifest]:
    return [
        tls_volume(process),
        {"name": "envoy", "configMap": {"name": f"envoy-{process}"}},
    ]


def _empty(mount: Manifest, size: str) -> Manifest:
    return {"name": mount["name"], "emptyDir": {"sizeLimit": size}}


def _spread(process: str) -> list[Manifest]:
    zones = _over("topology.kubernetes.io/zone", process)
    if process in _WITH_DISK:
        # A disk stays in the zone where its replica first came to be. Zones that are lost don't
        # count.
        zones |= {"whenUnsatisfiable": "DoNotSchedule", "nodeTaintsPolicy": "Honor"}
    return [zones, _over("kubernetes.io/hostname", process)]


def _over(key: str, process: str) -> Manifest:
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": of_process(process),
    }


def _service(process: str) -> Manifest:
    selector = of_process(process)["matchLabels"]
    if process == EDGE:
        ports = [
            {"name": "https", "port": 443, "targetPort": EDGE_PORT},
            {"name": "http", "port": 80, "targetPort": REDIRECT_PORT},
        ]
        return manifest(
            "v1",
            "Service",
            process,
            spec={
                "type": "LoadBalancer",
                # Who asks stays to be seen.
                "externalTrafficPolicy": "Local",
                "selector": selector,
                "ports": ports,
            },
        )
    # Headless: proxies find each pod, and see for themselves which of them are well.
    return manifest(
        "v1",
        "Service",
        process,
        spec={
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector,
            "ports": [{"name": "mesh", "port": MESH_PORT}],
        },
    )


def _disruption_budget(process: str) -> Manifest:
    return manifest(
        "policy/v1",
        "PodDisruptionBudget",
        process,
        spec={
            "maxUnavailable": 1,
            "selector": of_process(process),
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    )


def _scaler(process: str) -> Manifest:
    target = {"type": "Utilization", "averageUtilization": 60}
    kind = "StatefulSet" if process in _WITH_DISK else "Deployment"
    fewer: Manifest = {"stabilizationWindowSeconds": 600}
    if process in _WITH_DISK:
        # While the database is away there is less to do, and the last replica's journal not empty.
        fewer["selectPolicy"] = "Disabled"
    return manifest(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        process,
        spec={
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": process},
            "minReplicas": 2,
            # What Maintenance has to do doesn't grow.
            "maxReplicas": 2 if process == "maintenance" else _MOST_REPLICAS,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            "behavior": {"scaleDown": fewer},
        },
    )
