"""Reads what the protos say beside each RPC: who may call it, and where HTTP finds it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from shoptrail.access.v1 import access_pb2


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may call an RPC."""

    callers: frozenset[str]
    scopes: tuple[str, ...]


def methods_of(service: str) -> Iterator[MethodDescriptor]:
    """The RPCs of a service, by its full name; its generated module must be imported."""
    yield from descriptor_pool.Default().FindServiceByName(service).methods


def path_of(method: MethodDescriptor) -> str:
    """The method as gRPC names it on the wire: `/package.Service/Method`."""
    return f"/{method.containing_service.full_name}/{method.name}"


def rules_of(services: Iterable[str]) -> dict[str, Rule]:
    """The rule of every RPC of these services, by its path on the wire.

    Raises `ValueError` naming every RPC that has none: such a server must not start.
    """
    methods = [method for service in services for method in methods_of(service)]
    rules = {path_of(method): rule_of(method) for method in methods}
    lacking = sorted(path for path, rule in rules.items() if not rule.callers)
    if lacking:
        raise ValueError(f"no access rule for {', '.join(lacking)}")
    return rules


def rule_of(method: MethodDescriptor) -> Rule:
    """The rule of an RPC; without callers if it has none."""
    rule = method.GetOptions().Extensions[access_pb2.rule]
    return Rule(callers=frozenset(rule.callers), scopes=tuple(rule.scopes))


def may_repeat(method: MethodDescriptor) -> bool:
    """Whether calling the RPC twice does no more than calling it once."""
    return method.GetOptions().idempotency_level != descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN
