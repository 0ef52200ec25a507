"""Folds events of the log into what the read models gain by them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from services.query.quarters import QUARTER_SECONDS
from shoptrail.ingest.v1.event_pb2 import Event, EventType

_POSITION_BITS = 48
_NAMED_PAGES = (EventType.EVENT_TYPE_PAGE, EventType.EVENT_TYPE_SCREEN)


class LogDisorder(Exception):
    """The log does not go on where it was left; to count on would be to count wrong."""


@dataclass(frozen=True, slots=True, order=True)
class CountKey:
    """What is counted together."""

    store_uid: str
    quarter: int
    name: str


@dataclass(frozen=True, slots=True)
class RecordedEvent:
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


@dataclass(frozen=True, slots=True)
class Projection:
    """What the read models gain by some events."""

    position: int
    """Of the last of the events."""
    counts: dict[CountKey, int]
    events: list[RecordedEvent]


def fold(events: Sequence[Event], *, shard: int, after_position: int) -> Projection:
    """What the read models gain by the events of a shard that follow `after_position`.

    Raises `LogDisorder` unless each stands one after the one before it.
    """
    counts: Counter[CountKey] = Counter()
    recorded = []
    position = after_position
    for event in events:
        position += 1
        if event.position != position:
            raise LogDisorder(f"{event.position} stands where {position} must")
        name = event.name if event.type == EventType.EVENT_TYPE_TRACK else type_name(event.type)
        quarter = event.occur_time.seconds // QUARTER_SECONDS
        counts[CountKey(event.store_uid, quarter, name)] += 1
        recorded.append(
            RecordedEvent(
                id=shard << _POSITION_BITS | position,
                uid=event.uid,
                store_uid=event.store_uid,
                message_id=event.message_id,
                type=event.type,
                name=name,
                page_name=event.name if event.type in _NAMED_PAGES else "",
                user_id=event.user_id,
                anonymous_id=event.anonymous_id,
                occur_time=event.occur_time.ToDatetime(tzinfo=UTC),
                receive_time=event.receive_time.ToDatetime(tzinfo=UTC),
                payload=event.payload,
            )
        )
    return Projection(position=position, counts=dict(counts), events=recorded)


def type_name(number: int) -> str:
    """How a type of event is called, such as `page`; `type_<number>` of one not known here."""
    known = EventType.DESCRIPTOR.values_by_number.get(number)
    return known.name.removeprefix("EVENT_TYPE_").lower() if known else f"type_{number}"
