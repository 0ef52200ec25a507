"""The trail of who did what to which store or key, each entry sealed to the one before it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

START = bytes(32)
"""What stands in for the hash before the first entry."""


class Action(StrEnum):
    """What was done."""

    CREATE_STORE = "create_store"
    UPDATE_STORE = "update_store"
    DELETE_STORE = "delete_store"
    UNDELETE_STORE = "undelete_store"
    PURGE_STORE = "purge_store"
    CREATE_KEY = "create_key"
    UPDATE_KEY = "update_key"
    ROTATE_KEY = "rotate_key"
    REVOKE_KEY = "revoke_key"
    EXPIRE_KEY = "expire_key"
    DELETE_KEY = "delete_key"
    UNDELETE_KEY = "undelete_key"
    PURGE_KEY = "purge_key"
    EXPOSE_KEY = "expose_key"
    END_SESSIONS = "end_sessions"


class Outcome(StrEnum):
    """What came of it."""

    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it."""

    name: str
    """A service identity, the gateway's with the uid of a key, or a job's name."""
    request_id: str = ""
    client_network: str = ""


@dataclass(frozen=True, slots=True)
class Deed:
    """What was done, before it has its place in the trail."""

    action: Action
    outcome: Outcome = Outcome.DONE
    store_uid: str | None = None
    key_uid: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A deed in its place."""

    position: int
    create_time: datetime
    action: Action
    outcome: Outcome
    actor: str
    request_id: str
    client_network: str
    store_uid: str | None
    key_uid: str | None
    detail: str
    hash: bytes


def continue_trail(
    deeds: Iterable[Deed], actor: Actor, *, now: datetime, position: int, hash: bytes
) -> Iterator[Entry]:
    """The deeds as entries that follow the one at `position`, which has this hash."""
    for number, deed in enumerate(deeds, start=position + 1):
        entry = Entry(
            position=number,
            create_time=now,
            action=deed.action,
            outcome=deed.outcome,
            actor=actor.name,
            request_id=actor.request_id,
            client_network=actor.client_network,
            store_uid=deed.store_uid,
            key_uid=deed.key_uid,
            detail=deed.detail,
            hash=b"",
        )
        hash = hash_entry(entry, previous=hash)
        yield replace(entry, hash=hash)


def hash_entry(entry: Entry, *, previous: bytes) -> bytes:
    """SHA-256 over the hash before it and all that the entry says."""
    sealed = [
        value.isoformat() if isinstance(value, datetime) else value
        for value in (getattr(entry, name) for name in _SEALED)
    ]
    written = json.dumps(sealed, separators=(",", ":")).encode()
    return hashlib.sha256(previous + written).digest()


def find_break(entries: Iterable[Entry], *, after_position: int, previous: bytes) -> int | None:
    """The first position at which the entries don't follow one another; None if they all do."""
    expected = after_position
    for entry in entries:
        expected += 1
        if entry.position != expected or entry.hash != hash_entry(entry, previous=previous):
            return expected
        previous = entry.hash
    return None


_SEALED = tuple(name for name in Entry.__dataclass_fields__ if name != "hash")
