"""Decides what an event is worth: reads its JSON, and names the fault if it can't be kept.

The shape is that of Segment's tracking API: https://segment.com/docs/connections/spec/common/
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from enum import IntEnum
from typing import Any

import msgspec

from services.ingest.addresses import AddressStorage, reduce_address, reduce_addresses
from services.ingest.catalogue import NAMES as CATALOGUE_NAMES
from services.ingest.enrichment import NO_CONTEXT, describe_context, read_context
from services.ingest.money import MoneyNotValid, read_money
from services.ingest.occurrence import OLDEST, OLDEST_CLAIM, correct_time, read_time
from services.ingest.plans import PlanMode, Violation
from services.ingest.rules import DEFAULT_RULES, StoreRules
from services.ingest.user_agents import LONGEST_USER_AGENT

TEXT_LENGTH = 255
"""The most characters that a name or an id may have."""

DEPTH = 64
"""How deep an event's objects and lists may be nested."""

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
_BRACKETS = re.compile(rb"[\[\]{}]")


class EventType(IntEnum):
    """What kind of call made an event. The numbers are those of the proto and of the table."""

    TRACK = 1
    IDENTIFY = 2
    PAGE = 3
    SCREEN = 4
    GROUP = 5
    ALIAS = 6


class Verdict(IntEnum):
    """What becomes of an event. The numbers are those of the proto and of the table."""

    ACCEPTED = 1
    DUPLICATE = 2
    REJECTED = 3
    SUPPRESSED = 4
    QUOTA = 5


_TYPES = {kind.name.lower(): kind for kind in EventType}


class Rejection(Exception):
    """The event can't be kept. The message never repeats what the event holds."""

    def __init__(self, code: str, path: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.path = path


class Arrival(msgspec.Struct, frozen=True):
    """What is known of all events that came together."""

    receive_time: datetime
    sent_time: datetime | None = None
    default_type: EventType | None = None
    client_ip: str = ""
    user_agent: str = ""
    gpc: bool = False
    event_bytes: int = 0
    """The size above which these events are rejected; 0 for that of the configuration."""
    confirmed: bool = False
    """Whether the shop itself vouches for them; else anybody may have made them up."""


class Reading(msgspec.Struct, frozen=True, gc=False):
    """What is kept of an event. Texts that it doesn't have are empty.

    A struct, which is made in a tenth of a dataclass's time.
    """

    type: EventType
    name: str
    message_id: str
    user_id: str
    anonymous_id: str
    occur_time: datetime
    payload: bytes
    enrichment: bytes
    """A JSON object."""


class Salvage(msgspec.Struct, frozen=True):
    """What can be told of an event that can't be kept. Empty, or 0, is what can't."""

    type: int = 0
    name: str = ""
    message_id: str = ""
    user_id: str = ""
    anonymous_id: str = ""


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
    context: msgspec.Raw = msgspec.Raw()
    properties: msgspec.Raw = msgspec.Raw()


_decoder = msgspec.json.Decoder(_Fields)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_event(
    payload: bytes, arrival: Arrival, *, limit_bytes: int, rules: StoreRules = DEFAULT_RULES
) -> Reading:
    """What the event says; raises `Rejection` with the first fault found."""
    limit_bytes = arrival.event_bytes or limit_bytes
    if len(payload) > limit_bytes:
        raise Rejection("event_too_large", "", f"An event may have {limit_bytes} bytes.")
    fields = _decode(payload)
    _check_depth(payload)
    kind = _read_type(fields, arrival)
    user_id = _read_text(fields.user_id, "userId")
    anonymous_id = _read_text(fields.anonymous_id, "anonymousId")
    _check_requirements(kind, fields, named=bool(user_id or anonymous_id))
    name = _read_name(kind, fields)
    occur_time, time_flag = _read_occur_time(fields, arrival)
    return Reading(
        kind,
        name,
        _read_text(fields.message_id, "messageId"),
        user_id,
        anonymous_id,
        occur_time,
        reduce_addresses(payload, rules.address_storage),
        _enrich(kind, name, fields, arrival, rules, time_flag),
    )


def salvage_event(payload: bytes, arrival: Arrival) -> Salvage:
    """What can be told of an event that was rejected."""
    try:
        members = _members.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Salvage()
    named = _salvage_text(members, "type")
    kind = _TYPES.get(named) if named else arrival.default_type
    return Salvage(
        type=kind or 0,
        name=_salvage_text(members, "event" if kind is EventType.TRACK else "name"),
        message_id=_salvage_text(members, "messageId"),
        user_id=_salvage_text(members, "userId"),
        anonymous_id=_salvage_text(members, "anonymousId"),
    )


def encode_arrival(arrival: Arrival, storage: AddressStorage) -> bytes:
    """The arrival as JSON, with no more of the address than may be stored."""
    return msgspec.json.encode(
        msgspec.structs.replace(
            arrival,
            client_ip=reduce_address(arrival.client_ip, storage),
            user_agent=arrival.user_agent[:LONGEST_USER_AGENT],
        )
    )


def _enrich(
    kind: EventType,
    name: str,
    fields: _Fields,
    arrival: Arrival,
    rules: StoreRules,
    time_flag: str,
) -> bytes:
    flags = [time_flag] if time_flag else []
    raw_context, properties = _given(fields.context), _given(fields.properties)
    context = read_context(raw_context) if raw_context else NO_CONTEXT
    if context is None:
        flags.append("context_not_valid")
        context = NO_CONTEXT
    if context.ip and not arrival.confirmed:
        flags.append("ip_not_believed")
        context.ip = None
    members, agent = describe_context(
        context,
        client_ip=arrival.client_ip,
        user_agent=arrival.user_agent,
        gpc=arrival.gpc,
        storage=rules.address_storage,
    )
    if arrival.confirmed:
        members["confirmed"] = True
    if arrival.sent_time is not None and not fields.sent_at:
        members["time"] = {"sent": arrival.sent_time}
    if kind is EventType.TRACK:
        if properties and name in CATALOGUE_NAMES:
            try:
                money = read_money(properties)
            except MoneyNotValid:
                flags.append("money_not_valid")
            else:
                if money:
                    members["money"] = money
        if rules.plans:
            violations = _check_plan(name, properties or b"{}", rules)
            if violations:
                members["violations"] = violations
    if flags:
        members["flags"] = flags
    if not members:
        return b"{%b}" % agent
    return msgspec.json.encode(members)[:-1] + (b",%b}" % agent if agent else b"}")


def _check_plan(name: str, properties: bytes, rules: StoreRules) -> Sequence[Violation]:
    """Where the event doesn't fit its store's plan; raises `Rejection` if the plan blocks it."""
    plan = rules.plans.get(name)
    if plan is None:
        return ()
    violations = plan.schema.find_violations(properties)
    if violations and plan.mode is PlanMode.BLOCK:
        first = violations[0]
        raise Rejection(first.code, first.path, first.message)
    return violations


def _given(member: msgspec.Raw) -> bytes:
    """The member's JSON; empty if it is missing, or null, with which SDKs say the same."""
    text = bytes(member)
    return b"" if text == b"null" else text


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


def _check_depth(payload: bytes) -> None:
    if payload.count(b"{") + payload.count(b"[") <= DEPTH:
        return
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", payload)):
        depth += 1 if bracket in b"[{" else -1
        if depth > DEPTH:
            raise Rejection("too_deep", "", f"Objects and lists may be nested {DEPTH} deep.")


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


def _read_occur_time(fields: _Fields, arrival: Arrival) -> tuple[datetime, str]:
    if fields.timestamp:
        original = _read_time(fields.timestamp, "timestamp")
    elif fields.original_timestamp:
        original = _read_time(fields.original_timestamp, "originalTimestamp")
    else:
        return arrival.receive_time, ""
    sent = _read_time(fields.sent_at, "sentAt") if fields.sent_at else arrival.sent_time
    return correct_time(
        original,
        sent=sent,
        received=arrival.receive_time,
        oldest=OLDEST if arrival.confirmed else OLDEST_CLAIM,
    )


def _read_time(text: str, path: str) -> datetime:
    try:
        return read_time(text)
    except ValueError:
        raise Rejection("time_not_valid", path, "Times are ISO 8601.") from None


def _salvage_text(members: dict[str, Any], name: str) -> str:
    """The member, if it is a text or a whole number of a length that can be kept."""
    try:
        value = msgspec.json.decode(members.get(name, b"null"), type=str | int | None)
        return _read_text(value, name)
    except (msgspec.DecodeError, UnicodeDecodeError, Rejection):
        return ""
