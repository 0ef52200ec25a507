"""Decides what an event is worth: reads its JSON, and names the fault if it can't be kept.

The shape is that of Segment's tracking API: https://segment.com/docs/connections/spec/common/
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum

import msgspec

TEXT_LENGTH = 255
"""The most characters that a name or an id may have."""

_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


class EventType(IntEnum):
    """What kind of call made an event. The numbers are those of the proto and of the table."""

    TRACK = 1
    IDENTIFY = 2
    PAGE = 3
    SCREEN = 4
    GROUP = 5
    ALIAS = 6


_TYPES = {kind.name.lower(): kind for kind in EventType}


class Rejection(Exception):
    """The event can't be kept. The message never repeats what the event holds."""

    def __init__(self, code: str, path: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.path = path


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is known of all events that came together."""

    receive_time: datetime
    sent_time: datetime | None
    default_type: EventType | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What Shoptrail needs to know of an event. Texts that it doesn't have are empty."""

    type: EventType
    name: str
    message_id: str
    user_id: str
    anonymous_id: str
    occur_time: datetime


class _Fields(msgspec.Struct, rename="camel"):
    """The fields that are read; the others are only checked to be JSON."""

    type: str | None = None
    event: str | None = None
    name: str | None = None
    message_id: str | int | None = None
    user_id: str | int | None = None
    anonymous_id: str | int | None = None
    previous_id: str | int | None = None
    group_id: str | int | None = None
    timestamp: str | None = None
    original_timestamp: str | None = None
    sent_at: str | None = None


_decoder = msgspec.json.Decoder(_Fields)


def read_event(payload: bytes, arrival: Arrival, *, limit_bytes: int) -> Reading:
    """What the event says; raises `Rejection` with the first fault found."""
    if len(payload) > limit_bytes:
        raise Rejection("event_too_large", "", f"An event may have {limit_bytes} bytes.")
    fields = _decode(payload)
    kind = _read_type(fields, arrival)
    user_id = _read_text(fields.user_id, "userId")
    anonymous_id = _read_text(fields.anonymous_id, "anonymousId")
    _check_requirements(kind, fields, named=bool(user_id or anonymous_id))
    return Reading(
        type=kind,
        name=_read_name(kind, fields),
        message_id=_read_text(fields.message_id, "messageId"),
        user_id=user_id,
        anonymous_id=anonymous_id,
        occur_time=_read_occur_time(fields, arrival),
    )


def _decode(payload: bytes) -> _Fields:
    try:
        # The decoder only looks at the characters of what it reads; we keep the rest too.
        if not payload.isascii():
            payload.decode()
        return _decoder.decode(payload)
    except UnicodeDecodeError:
        raise Rejection("not_utf8", "", "The event is not UTF-8.") from None
    except msgspec.ValidationError as error:
        expectation, _, place = str(error).partition(" - at ")
        path = place.strip("`").removeprefix("$").removeprefix(".")
        raise Rejection("wrong_type", path, f"{expectation}.") from None
    except (msgspec.DecodeError, RecursionError):
        raise Rejection(
            "not_json", "", "The event is not valid JSON, or nested too deep."
        ) from None


def _read_type(fields: _Fields, arrival: Arrival) -> EventType:
    if not fields.type:
        if arrival.default_type is None:
            raise Rejection("type_missing", "type", "An event in a batch needs a type.")
        return arrival.default_type
    kind = _TYPES.get(fields.type)
    if kind is None:
        raise Rejection("type_unknown", "type", f"The types are {', '.join(_TYPES)}.")
    return kind


def _check_requirements(kind: EventType, fields: _Fields, *, named: bool) -> None:
    if kind is EventType.TRACK and not fields.event:
        raise Rejection("name_missing", "event", "A track event needs a name.")
    if kind is EventType.GROUP and fields.group_id in (None, ""):
        raise Rejection("group_id_missing", "groupId", "A group event needs the group's id.")
    if kind is EventType.ALIAS and fields.previous_id in (None, ""):
        raise Rejection("previous_id_missing", "previousId", "An alias event needs the other id.")
    if not named:
        raise Rejection("identity_missing", "", "An event needs a userId or an anonymousId.")


def _read_name(kind: EventType, fields: _Fields) -> str:
    if kind is EventType.TRACK:
        return _read_text(fields.event, "event")
    if kind in (EventType.PAGE, EventType.SCREEN):
        return _read_text(fields.name, "name")
    return ""


def _read_text(value: str | int | None, path: str) -> str:
    text = "" if value is None else str(value)
    if len(text) > TEXT_LENGTH:
        raise Rejection("text_too_long", path, f"May have {TEXT_LENGTH} characters.")
    return text


def _read_occur_time(fields: _Fields, arrival: Arrival) -> datetime:
    """When it happened, by the server's clock.

    receivedAt − (sentAt − originalTimestamp), as Segment has it, and not after
    receivedAt: https://segment.com/docs/connections/spec/common/#timestamps
    """
    if fields.timestamp:
        original = _read_time(fields.timestamp, "timestamp")
    elif fields.original_timestamp:
        original = _read_time(fields.original_timestamp, "originalTimestamp")
    else:
        return arrival.receive_time
    sent = _read_time(fields.sent_at, "sentAt") if fields.sent_at else arrival.sent_time
    delay = (sent or arrival.receive_time) - original
    longest = arrival.receive_time - _EARLIEST
    return arrival.receive_time - max(min(delay, longest), timedelta(0))


def _read_time(text: str, path: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        time = datetime.min.replace(tzinfo=UTC)
    if time < _EARLIEST:
        raise Rejection("time_not_valid", path, "Times are ISO 8601, and not before 1970.")
    return time
