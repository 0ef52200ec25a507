"""Holds an event's properties against a JSON Schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum
from typing import Any

import jsonschema_rs
import msgspec

SCHEMA_BYTES = 256 * 1024
"""The most that a schema may have."""

# What a schema comes to when each reference is written out. More would let one
# store's schema take the time of all.
_MOST_SUBSCHEMAS = 1000
_MOST_DEPTH = 64
_MOST_VIOLATIONS = 20
_LONGEST_PATH = 255
_LONGEST_MESSAGE = 200
# They reach further than what can be counted beforehand.
_FORBIDDEN = frozenset({"$dynamicRef", "$recursiveRef", "$id", "id", "$vocabulary"})

# As exact as they were written: a schema's bounds on money hold to the last digit.
_decoder = msgspec.json.Decoder(float_hook=Decimal)


class PlanMode(IntEnum):
    """What is done with events that don't fit. The numbers are those of the proto."""

    OFF = 1
    OBSERVE = 2
    BLOCK = 3


class SchemaNotValid(ValueError):
    """The text is no JSON Schema, or none that may be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Where an event doesn't fit. The message never repeats the event's values."""

    code: str
    path: str
    message: str


class Schema:
    """A JSON Schema, ready to use. Draft 2020-12 where `$schema` names no other.

    It looks at nothing but itself: no reference leads to another document. Patterns
    are of the kind that is matched in linear time.
    """

    def __init__(self, text: bytes) -> None:
        """Raises `SchemaNotValid`."""
        if len(text) > SCHEMA_BYTES:
            raise SchemaNotValid(f"may have {SCHEMA_BYTES} bytes")
        try:
            schema = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise SchemaNotValid("is not JSON") from None
        if not isinstance(schema, dict):
            raise SchemaNotValid("must be a JSON object")
        _SubschemaCount(schema).check()
        try:
            self._validator = jsonschema_rs.validator_for(
                schema,
                offline=True,
                mask="The value",
                pattern_options=jsonschema_rs.RegexOptions(),
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as fault:
            raise SchemaNotValid(_first_line(str(fault))) from None

    def find_violations(self, properties: bytes) -> Sequence[Violation]:
        """Where the properties, a JSON text, don't fit; the first 20 at most."""
        try:
            instance = _decoder.decode(properties)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ArithmeticError):
            return (Violation("plan_not_json", "properties", "Is not JSON that can be read."),)
        if self._validator.is_valid(instance):
            return ()
        violations = []
        for error in self._validator.iter_errors(instance):
            violations.append(_as_violation(error))
            if len(violations) == _MOST_VIOLATIONS:
                break
        return violations


class _SubschemaCount:
    """Counts what a schema comes to when each of its references is written out."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._root = schema
        self._counts: dict[str, int] = {}
        self._open: set[str] = set()

    def check(self) -> None:
        """Raises `SchemaNotValid` if it comes to too much."""
        self._count(self._root, 0)

    def _count(self, node: Any, depth: int) -> int:
        if depth > _MOST_DEPTH:
            raise SchemaNotValid(f"is nested deeper than {_MOST_DEPTH}")
        total = 1
        if isinstance(node, dict):
            for name, value in node.items():
                # A property may have such a name; then its schema is an object.
                if name in _FORBIDDEN and isinstance(value, str):
                    raise SchemaNotValid(f"may not use {name}")
                if name == "$ref" and isinstance(value, str):
                    total += self._count_reference(value, depth)
                else:
                    total += self._count(value, depth + 1)
        elif isinstance(node, list):
            total += sum(self._count(value, depth + 1) for value in node)
        else:
            total = 0
        if total > _MOST_SUBSCHEMAS:
            raise SchemaNotValid(f"comes to more than {_MOST_SUBSCHEMAS} parts")
        return total

    def _count_reference(self, reference: str, depth: int) -> int:
        if reference in self._open or reference == "#":
            raise SchemaNotValid("may not refer to itself")
        if reference not in self._counts:
            self._open.add(reference)
            self._counts[reference] = self._count(self._resolve(reference), depth + 1)
            self._open.discard(reference)
        return self._counts[reference]

    def _resolve(self, reference: str) -> Any:
        if not reference.startswith("#/"):
            raise SchemaNotValid("may only refer to its own parts, as in #/$defs/product")
        node: Any = self._root
        for part in reference[2:].split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(node, dict) or name not in node:
                raise SchemaNotValid("refers to a part that it doesn't have")
            node = node[name]
        return node


def _as_violation(error: jsonschema_rs.ValidationError) -> Violation:
    path = ["properties", *error.instance_path]
    missing = getattr(error.kind, "property", None)
    if error.kind.name == "required" and isinstance(missing, str):
        path.append(missing)
    return Violation(
        code=f"plan_{error.kind.name}"[:64],
        path=_as_text(path)[:_LONGEST_PATH],
        message=_first_line(error.message),
    )


def _as_text(path: Sequence[str | int]) -> str:
    """Such as `properties.products[2].price`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]


def _first_line(text: str) -> str:
    return text.partition("\n")[0][:_LONGEST_MESSAGE]
