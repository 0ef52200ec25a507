"""Makes requests that no client means: strange values in good form, and bytes that have none."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence
from typing import Any, cast

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_DEPTH = 4
_INTEGERS = (0, 1, -1, 2, 7, 255, 256, 10_001, 2**31 - 1, -(2**31), 2**53)
_LONG_INTEGERS = (*_INTEGERS, 2**63 - 1, -(2**63), 253402300800, -62135596801)
_NUMBERS = (0.0, -0.0, 1.5, float("inf"), float("-inf"), float("nan"), 5e-324, 1e308)
_TEXTS = (
    *("", " ", "\0", "x" * 256, "x" * 70_000, "😀", "ﷺ" * 300, "a\u0301", "\ud7ff\ue000", "\x7f"),
    *("'; DROP TABLE events; --", "%s%n", "../../etc/passwd", "${jndi:ldap://x}", "<script>", "*"),
    *("2026-11-22", "0001-01-01T00:00:00Z", "Europe/Berlin", "Mars/Base", "UTC", "DAY", "EUR"),
    *("sto_01h455vb4pex5vsknk084sn02q", "key_01h455vb4pex5vsknk084sn02q", "sto_", "evt_zzzz"),
    *(
        "sk_live_x",
        "pk_live_" + "A" * 38,
        "Product Viewed",
        "[]",
        "{}",
        "null",
        '{"type": "object"}',
    ),
    '[{"op": "replace", "path": "/event", "value": "x"}]',
    '{"$ref": "#"}',
)


class Mutator:
    """Requests at random; the same ones from the same seed."""

    def __init__(self, seed: int, *, known: Mapping[str, Sequence[str]]) -> None:
        """`known` has values that mean something, by the names of fields."""
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self._known = known

    def choose(self, methods: Sequence[MethodDescriptor]) -> MethodDescriptor:
        """One of these."""
        return self._chance.choice(methods)

    def request(self, method: MethodDescriptor) -> bytes:
        """What to send to a method."""
        message = GetMessageClass(method.input_type)()
        self._fill(message, _DEPTH)
        wire = message.SerializeToString()
        if self._chance.random() < 0.4:
            for _ in range(self._chance.randint(1, 4)):
                wire = self._damage(wire)
        return wire

    def metadata(self, pairs: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        """What goes with the call: mostly what belongs there."""
        if self._chance.random() < 0.95:
            return tuple(pairs)
        return tuple(
            (name, self._chance.choice((value, "", "x", value * 2))) for name, value in pairs
        )

    def _damage(self, wire: bytes) -> bytes:
        data = bytearray(wire)
        place = self._chance.randrange(len(data) + 1)
        match self._chance.randrange(6):
            case 0:
                del data[place:]
            case 1:
                data[place:place] = self._chance.randbytes(self._chance.randint(1, 9))
            case 2 if data:
                data[place % len(data)] ^= 1 << self._chance.randrange(8)
            case 3:
                del data[place : place + self._chance.randint(1, 9)]
            case 4:
                data += data[place:]
            case _:
                data[place:place] = b"\xff" * 10
        return bytes(data)

    def _fill(self, message: Message, depth: int) -> None:
        chance = self._chance
        for field in cast("Sequence[FieldDescriptor]", message.DESCRIPTOR.fields):
            if chance.random() < 0.3:
                continue
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                continue
            if field.message_type is not None:
                if depth:
                    self._fill_message(message, field, depth - 1)
            elif field.is_repeated:
                count = chance.choice((0, 1, 2, 3, 250))
                getattr(message, field.name).extend(self._value(field) for _ in range(count))
            else:
                setattr(message, field.name, self._value(field))

    def _fill_message(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        if field.is_repeated:
            for _ in range(self._chance.choice((0, 1, 2))):
                self._fill(getattr(message, field.name).add(), depth)
        else:
            inner = getattr(message, field.name)
            inner.SetInParent()
            self._fill(inner, depth)

    def _value(self, field: FieldDescriptor) -> Any:
        chance = self._chance
        kind = field.cpp_type
        if kind == FieldDescriptor.CPPTYPE_STRING:
            known = self._known.get(field.name, ())
            text = (
                chance.choice(known) if known and chance.random() < 0.7 else chance.choice(_TEXTS)
            )
            if field.type == FieldDescriptor.TYPE_BYTES:
                payload = chance.choice((text.encode(errors="replace"), chance.randbytes(40)))
                return payload
            return text.encode(errors="replace").decode()
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return chance.random() < 0.5
        if field.enum_type is not None:
            numbers = [value.number for value in field.enum_type.values]
            return chance.choice((*numbers, 99, -1))
        if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
            number = chance.choice(_NUMBERS)
            if kind == FieldDescriptor.CPPTYPE_FLOAT and abs(number) > 1e38:
                return struct.unpack("f", struct.pack("f", 1.0))[0]
            return number
        if kind in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64):
            return abs(chance.choice(_INTEGERS))
        if kind == FieldDescriptor.CPPTYPE_INT32:
            return chance.choice([number for number in _INTEGERS if number < 2**31])
        return chance.choice(_LONG_INTEGERS)
