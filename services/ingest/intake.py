"""Turns what arrives into what is written: events for the log, and rejected ones."""

from __future__ import annotations

import hashlib
from datetime import datetime

from common.uid import format_uid, new_uid, new_uuid
from services.ingest.addresses import reduce_addresses
from services.ingest.append import NewEvent
from services.ingest.repository import RejectedEvent
from services.ingest.rules import StoreRules
from services.ingest.verdicts import Arrival, Reading, Rejection, encode_arrival, salvage_event

_LONGEST_PATH = 255
_LONGEST_MESSAGE = 1000


def hour_of(time: datetime) -> int:
    """The hour that the time lies in: hours since 1970."""
    return int(time.timestamp()) // 3600


def key_of(message_id: str) -> bytes:
    """What an event is known by in its store: a hash of its message id, byte by byte."""
    return hashlib.blake2b(message_id.encode(), digest_size=16).digest()


def new_event(
    reading: Reading, *, store: bytes, receive_time: datetime, hour: int, message_id: str = ""
) -> NewEvent:
    """The event as it goes into the log, under its own message id or the one that is given."""
    uid = new_uuid()
    message_id = message_id or reading.message_id or format_uid("evt", uid)
    return NewEvent(
        uid,
        store,
        key_of(message_id),
        message_id,
        reading.type,
        reading.name,
        reading.user_id,
        reading.anonymous_id,
        reading.occur_time,
        receive_time,
        hour,
        reading.payload,
        reading.enrichment,
    )


def rejected_event(
    payload: bytes, fault: Rejection, *, store_uid: str, arrival: Arrival, rules: StoreRules
) -> RejectedEvent:
    """The event as it is kept apart: no more of an address in it than the store allows."""
    uid = new_uid("rej")
    salvage = salvage_event(payload, arrival)
    message_id = salvage.message_id or uid
    return RejectedEvent(
        uid=uid,
        store_uid=store_uid,
        message_key=key_of(message_id),
        message_id=message_id,
        type=salvage.type,
        name=salvage.name,
        user_id=salvage.user_id,
        anonymous_id=salvage.anonymous_id,
        code=fault.code,
        path=fault.path[:_LONGEST_PATH],
        message=str(fault)[:_LONGEST_MESSAGE],
        receive_time=arrival.receive_time,
        arrival=encode_arrival(arrival, rules.address_storage),
        payload=reduce_addresses(payload, rules.address_storage),
    )
