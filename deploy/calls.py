"""Who calls whom in the mesh, from the rules that stand beside the RPCs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.descriptor import MethodDescriptor

from common.access import may_repeat, methods_of, path_of, rule_of

SERVICES = ("ingest", "query", "keys", "maintenance")
EDGE, GATEWAY = "edge", "gateway"
# What runs all the time and has a certificate, but for the edge.
PROCESSES = (*SERVICES, GATEWAY)
_JOBS = "shoptrail.maintenance.v1.Maintenance"
_CONTRACTS = {
    **{service: (f"shoptrail.{service}.v1.{service.capitalize()}", _JOBS) for service in SERVICES},
    "maintenance": (_JOBS, "shoptrail.maintenance.v1.Privacy"),
}


@dataclass(frozen=True, slots=True)
class Rpc:
    """An RPC as a proxy sees it."""

    path: str
    callers: frozenset[str]
    may_repeat: bool
    """Whether calling it twice does no more than calling it once."""
    waits: bool
    """Whether the request says how long to wait for an answer."""


def rpcs_of(service: str) -> list[Rpc]:
    """What the service's process serves: its own RPCs, and those about its jobs."""
    return [
        Rpc(
            path=path_of(method),
            callers=rule_of(method).callers,
            may_repeat=may_repeat(method),
            waits=_waits(method),
        )
        for contract in _CONTRACTS[service]
        for method in _methods_of(contract)
    ]


def callers_of(process: str) -> list[str]:
    """The identities that may call the process, by name."""
    if process == GATEWAY:
        return [EDGE]
    return sorted(set[str]().union(*(rpc.callers for rpc in rpcs_of(process))))


def callees_of(identity: str) -> list[str]:
    """The processes that the identity may call."""
    return [process for process in PROCESSES if identity in callers_of(process)]


def spiffe_id(identity: str) -> str:
    """The identity as certificates have it."""
    return f"spiffe://shoptrail/{identity}"


def _methods_of(contract: str) -> Iterator[MethodDescriptor]:
    package, _, name = contract.rpartition(".")
    importlib.import_module(f"{package}.{name.lower()}_pb2")
    yield from methods_of(contract)


def _waits(method: MethodDescriptor) -> bool:
    return "wait" in method.input_type.fields_by_name or method.name == "RunCron"
