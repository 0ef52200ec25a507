"""Notes who calls, on whose behalf, under which request id and until when."""

from __future__ import annotations

import time
from typing import Any

from common.context import (
    CLIENT_NETWORK,
    FORWARDED_CERTIFICATE,
    GATEWAY,
    KEY_SCOPES,
    KEY_STORE_UID,
    KEY_UID,
    REQUEST_ID,
    Call,
    Key,
    current_call,
)
from common.interceptors.wrap import Context, Handler, UnaryInterceptor
from common.uid import new_uid

_SPIFFE_PREFIX = "spiffe://shoptrail/"
_REQUEST_ID_LENGTH = 128
_NETWORK_LENGTH = 64


class RequestContextInterceptor(UnaryInterceptor):
    """Makes the call known to `common.context` while it is served."""

    def __init__(self, *, proxy: str = "") -> None:
        """`proxy` is the identity that may say for whom it calls; if empty, none may."""
        self._proxy = proxy

    async def around(self, method: str, handle: Handler, request: Any, context: Context) -> Any:
        metadata = {
            name: value
            for name, value in context.invocation_metadata() or ()
            if isinstance(value, str)
        }
        identity = self._find_caller(context, metadata)
        remaining = context.time_remaining()
        call = Call(
            request_id=metadata.get(REQUEST_ID, "")[:_REQUEST_ID_LENGTH] or new_uid("req"),
            identity=identity,
            key=_key_in(metadata) if identity == GATEWAY else None,
            deadline=None if remaining is None else time.monotonic() + remaining,
            client_network=metadata.get(CLIENT_NETWORK, "")[:_NETWORK_LENGTH],
        )
        token = current_call.set(call)
        try:
            return await handle(request, context)
        finally:
            current_call.reset(token)

    def _find_caller(self, context: Context, metadata: dict[str, str]) -> str:
        identity = _identity_of(context)
        if self._proxy and identity == self._proxy and FORWARDED_CERTIFICATE in metadata:
            return _forwarded_identity(metadata[FORWARDED_CERTIFICATE])
        return identity


def _identity_of(context: Context) -> str:
    for spiffe_id in context.auth_context().get("peer_spiffe_id", ()):
        text = spiffe_id.decode(errors="replace")
        if text.startswith(_SPIFFE_PREFIX):
            return text.removeprefix(_SPIFFE_PREFIX)
    return ""


def _forwarded_identity(header: str) -> str:
    """Who showed the proxy their certificate; empty if that isn't said, or more than one is."""
    if "," in header or '"' in header:
        return ""
    fields = [field.partition("=") for field in header.split(";")]
    ids = [value for name, _, value in fields if name.lower() == "uri"]
    if len(ids) != 1 or not ids[0].startswith(_SPIFFE_PREFIX):
        return ""
    return ids[0].removeprefix(_SPIFFE_PREFIX)


def _key_in(metadata: dict[str, str]) -> Key | None:
    uid = metadata.get(KEY_UID)
    if not uid:
        return None
    scopes = frozenset(filter(None, metadata.get(KEY_SCOPES, "").split(",")))
    return Key(uid=uid, store_uid=metadata.get(KEY_STORE_UID, ""), scopes=scopes)
