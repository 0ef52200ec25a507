"""What is known of the call that is being served, wherever its code has got to."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass

REQUEST_ID = "x-request-id"
KEY_UID = "x-key-uid"
KEY_STORE_UID = "x-key-store-uid"
KEY_SCOPES = "x-key-scopes"
CLIENT_NETWORK = "x-client-network"
# What Envoy says of the certificate that it was shown.
FORWARDED_CERTIFICATE = "x-forwarded-client-cert"

GATEWAY = "gateway"
"""The identity that calls on behalf of keys: what it says of them is believed."""


@dataclass(frozen=True, slots=True)
class Key:
    """The API key on whose behalf a service is called."""

    uid: str
    store_uid: str
    """Empty for a key that belongs to no store."""
    scopes: frozenset[str]
    is_publishable: bool = False
    """Whether it stands in pages for all to see. Known only to whoever verified it."""


@dataclass(frozen=True, slots=True)
class Call:
    """The call that is being served."""

    request_id: str
    identity: str
    """The caller's: the last part of the SPIFFE id in its certificate; empty if it has none."""
    key: Key | None = None
    deadline: float | None = None
    """By the monotonic clock, in seconds."""
    client_network: str = ""
    """Where the request came from, as `common.network` has it; empty if that is unknown."""

    def remaining_seconds(self) -> float | None:
        """The time until the deadline, if there is one."""
        return None if self.deadline is None else self.deadline - time.monotonic()


current_call: ContextVar[Call | None] = ContextVar("current_call", default=None)


def get_call() -> Call:
    """The call that is being served; raises `LookupError` outside of one."""
    call = current_call.get()
    if call is None:
        raise LookupError("no call is being served")
    return call
