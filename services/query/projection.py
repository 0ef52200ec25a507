"""Folds events of the log into what the read models gain by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from common.digest import digest_of_one
from services.query.enrichment import read_enrichment
from services.query.identities import anonymous_subject, user_subject
from services.query.orders import Trust
from services.query.payload import (
    Payload,
    device_of,
    read_payload,
    whereabouts_of,
)
from shoptrail.ingest.v1.event_pb2 import Event, EventType

PAGE_TYPES = (EventType.EVENT_TYPE_PAGE, EventType.EVENT_TYPE_SCREEN)
TRACK, IDENTIFY, ALIAS = (
    EventType.EVENT_TYPE_TRACK,
    EventType.EVENT_TYPE_IDENTIFY,
    EventType.EVENT_TYPE_ALIAS,
)

_POSITION_BITS = 48
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class LogDisorder(Exception):
    """The log does not go on where it was left; to count on would be to count wrong."""


# Structs, which are made in a fraction of a dataclass's time: there is one for each event.
class RecordedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as the listing keeps it."""

    id: int
    uid: str
    store_uid: str
    message_id: str
    type: int
    name: str
    """Of `track` events their name, of others their type, such as `page`."""
    page_name: str
    """What a page or screen is called; of other types empty."""
    user_id: str
    anonymous_id: str
    occur_time: datetime
    receive_time: datetime
    payload: bytes
    trust: int
    """One of `Trust`."""
    device: str
    """`mobile`, `tablet` or `desktop`; empty if Ingest doesn't know."""
    browser: str
    """The browser's name; empty if Ingest doesn't know."""
    consent: str
    """What the visitor agreed to; empty if Ingest doesn't know."""


class Fact(msgspec.Struct, frozen=True, gc=False):
    """An event as the figures see it."""

    event: RecordedEvent
    mark: bytes
    """Stands for the message id: orders events of the same time wherever the log has them."""
    payload: Payload
    anonymous: bytes | None
    """Stands for the anonymous id, if there is one."""
    user: bytes | None
    """Stands for the user id, if there is one."""
    page: str
    campaign: str
    referrer: str
    device: str
    country: str


@dataclass(frozen=True, slots=True)
class Projection:
    """What the read models gain by some events."""

    position: int
    """Of the last of the events."""
    facts: list[Fact]

    @property
    def events(self) -> list[RecordedEvent]:
        return [fact.event for fact in self.facts]


def fold(events: Sequence[Event], *, shard: int, after_position: int) -> Projection:
    """What the read models gain by the events of a shard that follow `after_position`.

    Raises `LogDisorder` unless each stands one after the one before it.
    """
    facts = []
    position = after_position
    for event in events:
        position += 1
        if event.position != position:
            raise LogDisorder(f"{event.position} stands where {position} must")
        facts.append(fact_of(recorded_event(event, shard=shard)))
    return Projection(position=position, facts=facts)


def recorded_event(event: Event, *, shard: int) -> RecordedEvent:
    """An event of the log, as the listing keeps it."""
    kind, given_name = event.type, event.name
    found = read_enrichment(event.enrichment)
    return RecordedEvent(
        shard << _POSITION_BITS | event.position,
        event.uid,
        event.store_uid,
        event.message_id,
        kind,
        given_name if kind == TRACK else type_name(kind),
        given_name if kind in PAGE_TYPES else "",
        event.user_id,
        event.anonymous_id,
        _as_time(event.occur_time),
        _as_time(event.receive_time),
        event.payload,
        Trust.CONFIRMED if found.confirmed else Trust.CLAIMED,
        found.device,
        found.browser,
        found.consent,
    )


def is_expired(event: RecordedEvent) -> bool:
    """Whether this is what is left of an event that its store keeps no longer."""
    nobody = not event.user_id and not event.anonymous_id  # No sender can say so.
    return nobody and b'"expired":true' in event.payload


def fact_of(event: RecordedEvent) -> Fact:
    """What the event says."""
    payload = read_payload(event.payload)
    where = whereabouts_of(payload)
    user_id, anonymous_id = event.user_id, event.anonymous_id
    # By place, as here and in `recorded_event`, is quicker than by name.
    return Fact(
        event,
        digest_of_one(event.message_id),
        payload,
        anonymous_subject(anonymous_id) if anonymous_id else None,
        user_subject(user_id) if user_id else None,
        where.page,
        where.campaign,
        where.referrer,
        event.device or device_of(payload),
        where.country,
    )


def position_of(event: RecordedEvent) -> int:
    """Where the event stands in the log of its shard."""
    return event.id & (1 << _POSITION_BITS) - 1


def place_of(identifier: int) -> tuple[int, int]:
    """The shard and the position that an event's id stands for."""
    return identifier >> _POSITION_BITS, identifier & (1 << _POSITION_BITS) - 1


def ids_after(shard: int, position: int) -> tuple[int, int]:
    """The ids between which the events stand that follow a position, neither included."""
    return shard << _POSITION_BITS | position, (shard + 1) << _POSITION_BITS


@lru_cache
def type_name(number: int) -> str:
    """How a type of event is called, such as `page`; `type_<number>` of one not known here."""
    known = EventType.DESCRIPTOR.values_by_number.get(number)
    return known.name.removeprefix("EVENT_TYPE_").lower() if known else f"type_{number}"


def type_numbers() -> dict[str, int]:
    """The numbers of the types that are known here, by their names."""
    return {type_name(number): number for number in EventType.values() if number}


def _as_time(time: Timestamp) -> datetime:
    # `ToDatetime` takes five times as long.
    return _EPOCH + timedelta(0, time.seconds, time.nanos // 1000)
