"""Stores, keys and the trail as callers see them."""

from __future__ import annotations

from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from services.keys.key_text import Kind
from services.keys.repository import ApiKey, Store
from services.keys.trail import Entry
from shoptrail.keys.v1 import api_key_pb2, key_event_pb2, store_pb2

KINDS = {
    api_key_pb2.KEY_KIND_PUBLISHABLE: Kind.PUBLISHABLE,
    api_key_pb2.KEY_KIND_SECRET: Kind.SECRET,
    api_key_pb2.KEY_KIND_CRON: Kind.CRON,
}
_KIND_VALUES = {kind: value for value, kind in KINDS.items()}

# How long a key must have been out of use before nobody seems to need it.
_UNUSED = timedelta(hours=24)


def store_message(store: Store) -> store_pb2.Store:
    """The store, less its private key."""
    return store_pb2.Store(
        uid=store.uid,
        display_name=store.display_name,
        create_time=_timestamp(store.create_time),
        update_time=_timestamp(store.update_time),
        delete_time=_timestamp(store.delete_time),
        purge_time=_timestamp(store.purge_time),
    )


def key_message(key: ApiKey, *, now: datetime) -> api_key_pb2.ApiKey:
    """The key, less what nobody needs to see."""
    return api_key_pb2.ApiKey(
        uid=key.uid,
        store_uid=key.store_uid,
        kind=_KIND_VALUES[key.kind],
        display_name=key.display_name,
        hint=key.hint,
        scopes=key.scopes,
        create_time=_timestamp(key.create_time),
        expire_time=_timestamp(key.expire_time),
        revoke_time=_timestamp(key.revoke_time),
        delete_time=_timestamp(key.delete_time),
        purge_time=_timestamp(key.purge_time),
        last_used_time=_timestamp(key.use_time),
        last_origin=key.use_origin,
        last_sdk=key.use_sdk,
        exposed_time=_timestamp(key.expose_time),
        safe_to_revoke=key.has_ended(now) or (key.use_time or key.create_time) < now - _UNUSED,
        successor_key_uid=key.successor_uid or "",
        rotate_period=Duration(seconds=key.rotate_seconds) if key.rotate_seconds else None,
        allowed_origins=key.allowed_origins,
    )


def entry_message(entry: Entry) -> key_event_pb2.KeyEvent:
    """The entry, as it stands in the trail."""
    return key_event_pb2.KeyEvent(
        position=entry.position,
        create_time=_timestamp(entry.create_time),
        action=key_event_pb2.KeyEventAction.Value(f"KEY_EVENT_ACTION_{entry.action.name}"),
        outcome=key_event_pb2.KeyEventOutcome.Value(f"KEY_EVENT_OUTCOME_{entry.outcome.name}"),
        actor=entry.actor,
        request_id=entry.request_id,
        client_network=entry.client_network,
        store_uid=entry.store_uid or "",
        key_uid=entry.key_uid or "",
        detail=entry.detail,
        hash=entry.hash,
    )


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message
