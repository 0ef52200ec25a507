"""Enforces the access rule that stands beside each RPC in its proto."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.access import Rule
from common.context import Call, get_call
from common.errors import CallerNotAllowed, ScopeMissing, WrongStore
from common.interceptors.wrap import Context, Handler, UnaryInterceptor

_ACTS_FOR_KEYS = "gateway"


class AccessInterceptor(UnaryInterceptor):
    """Lets only those through whom the rule names, before anything is looked up."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self._rules = rules

    async def around(self, method: str, handle: Handler, request: Any, context: Context) -> Any:
        _check(self._rules.get(method), get_call(), getattr(request, "store_uid", None))
        return await handle(request, context)


def _check(rule: Rule | None, call: Call, store_uid: str | None) -> None:
    if rule is None or call.identity not in rule.callers:
        raise CallerNotAllowed
    if call.identity != _ACTS_FOR_KEYS or not rule.scopes:
        return
    held = call.key.scopes if call.key else frozenset()
    for scope in rule.scopes:
        if scope not in held:
            raise ScopeMissing(scope)
    # A key of a store may not leave out which store it means either.
    if call.key and call.key.store_uid and store_uid not in (None, call.key.store_uid):
        raise WrongStore
