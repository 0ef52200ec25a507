"""Which scopes each kind of key can have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.keys.key_text import Kind

_OF_A_STORE = (
    "events:write",
    "events:read",
    "reports:read",
    "keys:read",
    "keys:write",
    "stores:read",
    "settings:read",
    "settings:write",
)

# What is needed seldom and can't be undone is granted to who asks for it by name.
_BY_NAME = ("privacy:write",)

# By kind, and by whether the key belongs to a store. What isn't here can't be.
_GRANTABLE: Mapping[tuple[Kind, bool], Sequence[str]] = {
    (Kind.PUBLISHABLE, True): ("events:write",),
    (Kind.SECRET, True): (*_OF_A_STORE, *_BY_NAME),
    (Kind.SECRET, False): (*_OF_A_STORE, *_BY_NAME, "stores:write", "cron:run", "audit:read"),
    (Kind.CRON, False): ("cron:run",),
}

DEFAULT_SCOPES: Mapping[Kind, Sequence[str]] = {
    Kind.PUBLISHABLE: ("events:write",),
    Kind.SECRET: _OF_A_STORE,
    Kind.CRON: ("cron:run",),
}
"""What a key gets whose creator names no scopes."""


def grantable_scopes(kind: Kind, *, of_store: bool) -> Sequence[str] | None:
    """What such a key can be granted; None if there can be no such key."""
    return _GRANTABLE.get((kind, of_store))
