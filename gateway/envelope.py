"""Reads the JSON that Segment's SDKs send: which key, which events, sent when."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import msgspec

from common.errors import BodyTooLarge, InvalidRequest
from gateway.body import MAX_BODY_BYTES
from gateway.salvage import Unsalvageable, cut_array, cut_object

MAX_EVENTS = 2500

_Read = TypeVar("_Read")

# Escapes of half a surrogate pair, as JavaScript writes a text that was cut in the
# middle of an emoji. An even number of backslashes before one are themselves escapes.
_LONE_SURROGATE = re.compile(
    rb"(?<!\\)((?:\\\\)*)"
    rb"(?:\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)


@dataclass(frozen=True, slots=True)
class Sent:
    """What a body says."""

    write_key: str | None
    payloads: list[bytes]
    """The events. Few are no objects, or no valid JSON: that is for Ingest to say."""
    sent_time: datetime | None = None
    """When they were sent, by the sender's clock, where it stands beside the events."""


# The decoders' own: `msgspec.DecodeError` says nothing of depth, nor of bytes that are no UTF-8.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Message(msgspec.Struct):
    writeKey: object = None  # noqa: N815 - Segment's name, as those that follow
    messageId: object = None  # noqa: N815


class _Envelope(msgspec.Struct):
    batch: list[msgspec.Raw]
    writeKey: object = None  # noqa: N815
    sentAt: object = None  # noqa: N815
    context: msgspec.Raw = msgspec.Raw()
    integrations: msgspec.Raw = msgspec.Raw()


_messages = msgspec.json.Decoder(_Message)
_envelopes = msgspec.json.Decoder(_Envelope)
_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_event(body: bytes) -> Sent:
    """A body that is one event. Raises `InvalidRequest`."""
    try:
        message, body = _read(body, _messages)
    except InvalidRequest:
        # An object whose end can be told is Ingest's to judge, and to keep if it is no event.
        message = _salvage_message(body)
    return Sent(_text(message.writeKey), payloads=[body])


def read_batch(body: bytes) -> Sent:
    """A body with several events, `batch`.

    Each event gets the `context` and the `integrations` that stand beside them; its
    own go before those. The key is beside the events, or in the first of them.
    Raises `InvalidRequest`, also if there are more than 2500 events; `BodyTooLarge`
    if with what they get the events would be larger than a body may be. An event that
    is no valid JSON stays as it is, if its end can be told.
    """
    try:
        envelope, _ = _read(body, _envelopes)
    except InvalidRequest:
        envelope = _salvage_envelope(body)
    if len(envelope.batch) > MAX_EVENTS:
        raise InvalidRequest({"batch": f"has more than {MAX_EVENTS} events"})
    payloads = [bytes(event) for event in envelope.batch]
    write_key = _text(envelope.writeKey)
    if write_key is None and payloads:
        write_key = _text(_peek(payloads[0]).writeKey)
    shared = {
        name: value
        for name, value in (
            ("context", bytes(envelope.context)),
            ("integrations", bytes(envelope.integrations)),
        )
        if value.startswith(b"{")
    }
    if shared:
        added = sum(map(len, shared.values())) * len(payloads)
        if sum(map(len, payloads)) + added > MAX_BODY_BYTES:
            raise BodyTooLarge(MAX_BODY_BYTES)
        payloads = [_with_shared(payload, shared) for payload in payloads]
    return Sent(write_key, payloads=payloads, sent_time=_time(envelope.sentAt))


def message_id_of(payload: bytes) -> str | None:
    """The event's `messageId`, if it has one."""
    return _text(_peek(payload).messageId)


def _read(body: bytes, decoder: msgspec.json.Decoder[_Read]) -> tuple[_Read, bytes]:
    """What the decoder reads, and the body that it read it from."""
    if not body.isascii():  # The decoder doesn't look into what it leaves raw.
        try:
            body.decode()
        except UnicodeDecodeError:
            raise InvalidRequest({"body": "is not UTF-8"}) from None
    try:
        return decoder.decode(body), body
    except msgspec.DecodeError as error:
        # A cut emoji must not cost its event, nor the others.
        repaired = _repair(body)
        if repaired != body:
            return _read(repaired, decoder)
        raise InvalidRequest({"body": str(error)}) from None
    except RecursionError:
        raise InvalidRequest({"body": "is nested too deeply"}) from None


def _repair(body: bytes) -> bytes:
    return _LONE_SURROGATE.sub(rb"\1\\ufffd", body)


def _salvage_message(body: bytes) -> _Message:
    """What can be read of an object that is no valid JSON. Raises the `InvalidRequest` anew."""
    try:
        members = cut_object(body)
    except Unsalvageable:
        return _read(body, _messages)[0]
    return _Message(*(_value(members.get(name)) for name in (b'"writeKey"', b'"messageId"')))


def _salvage_envelope(body: bytes) -> _Envelope:
    """What stands beside the events must be valid. Raises the `InvalidRequest` anew."""
    try:
        members = cut_object(_repair(body))
        events = cut_array(members.pop(b'"batch"', b""))
    except Unsalvageable:
        return _read(body, _envelopes)[0]
    members[b'"batch"'] = b"[]"
    beside = b",".join(b"%b:%b" % member for member in members.items())
    envelope, _ = _read(b"{%b}" % beside, _envelopes)
    envelope.batch = [msgspec.Raw(event) for event in events]
    return envelope


def _value(text: bytes | None) -> object:
    try:
        return msgspec.json.decode(text or b"null")
    except _UNREADABLE:
        return None


def _peek(payload: bytes) -> _Message:
    try:
        return _messages.decode(payload)
    except _UNREADABLE:  # It is no object: Ingest's to reject.
        return _Message()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _time(value: object) -> datetime | None:
    try:
        time = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        return None
    return time if time.tzinfo else None


def _with_shared(payload: bytes, shared: dict[str, bytes]) -> bytes:
    """The event with the shared fields in it; as it is if it's no object."""
    try:
        fields = _objects.decode(payload)
    except _UNREADABLE:
        return payload
    for name, value in shared.items():
        own = bytes(fields.get(name, b"null"))
        if own == b"null":
            fields[name] = msgspec.Raw(value)
        elif own.startswith(b"{"):
            merged = _objects.decode(value) | _objects.decode(own)
            fields[name] = msgspec.Raw(msgspec.json.encode(merged))
    return msgspec.json.encode(fields)
