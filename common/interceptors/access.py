"""Enforces the access rule that stands beside each RPC in its proto."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from common.access import Rule
from common.context import GATEWAY, Key, current_call, get_call
from common.errors import CallerNotAllowed, KeyMissing, KeyNotValid, ScopeMissing, WrongStore
from common.interceptors.wrap import Context, Handler, UnaryInterceptor

VerifyKey = Callable[[str, Mapping[bytes, bytes]], Awaitable[Key]]
"""The key with a text that came with some headers; raises a `MeshError` if it doesn't work."""

# Whose certificate says nothing but that it may ask: what it may do, its key says.
_SHOWS_KEYS = "client"
_BEARER = "Bearer "


async def refuse_keys(text: str, headers: Mapping[bytes, bytes]) -> Key:
    """The `VerifyKey` of a server that takes no keys."""
    raise KeyNotValid


class AccessInterceptor(UnaryInterceptor):
    """Lets only those through whom the rule names, before anything is looked up.

    The gateway acts for a key that it has verified. A `client` shows its key here, as
    `authorization: Bearer <key>`.
    """

    def __init__(self, rules: Mapping[str, Rule], verify: VerifyKey) -> None:
        self._rules = rules
        self._verify = verify

    async def around(self, method: str, handle: Handler, request: Any, context: Context) -> Any:
        rule = self._rules.get(method)
        call = get_call()
        if rule is None or call.identity not in rule.callers:
            raise CallerNotAllowed
        if call.identity not in (GATEWAY, _SHOWS_KEYS) or not rule.scopes:
            return await handle(request, context)
        if call.identity == _SHOWS_KEYS:
            call = replace(call, key=await self._read_key(context))
        _check_key(rule, call.key, getattr(request, "store_uid", None))
        token = current_call.set(call)
        try:
            return await handle(request, context)
        finally:
            current_call.reset(token)

    async def _read_key(self, context: Context) -> Key:
        headers = {
            name.encode(): value.encode()
            for name, value in context.invocation_metadata() or ()
            if isinstance(value, str)
        }
        authorization = headers.pop(b"authorization", b"").decode()
        if not authorization.startswith(_BEARER):
            raise KeyMissing
        return await self._verify(authorization.removeprefix(_BEARER), headers)


def _check_key(rule: Rule, key: Key | None, store_uid: str | None) -> None:
    held = key.scopes if key else frozenset()
    for scope in rule.scopes:
        if scope not in held:
            raise ScopeMissing(scope)
    # A key of a store may not leave out which store it means either.
    if key and key.store_uid and store_uid not in (None, key.store_uid):
        raise WrongStore
