"""Cuts a body that is no valid JSON into its parts, so that one bad event costs only itself."""

from __future__ import annotations

import re
from collections.abc import Iterator

# More would hold up all other requests for too long. SDKs stay below half of it.
_MAX_BYTES = 1024 * 1024
_MAX_STEPS = 50_000

_STRING = rb'"(?:[^"\\]|\\.)*+"'
# Up to the next bracket, or comma beside the brackets; what stands in strings is neither.
_TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]|' + _STRING + rb")*+", re.DOTALL)
_TO_COMMA = re.compile(rb'(?:[^"\[\]{},]|' + _STRING + rb")*+", re.DOTALL)
_OPENING = re.compile(rb"[\[{]++")
_CLOSING = re.compile(rb"[\]}]++")
_MEMBER = re.compile(rb"\s*(" + _STRING + rb")\s*:(.*)", re.DOTALL)


class Unsalvageable(Exception):
    """Nobody can tell where the parts begin and end."""


def cut_object(text: bytes) -> dict[bytes, bytes]:
    """The object's members: the name in its quotes, and the value as it was written.

    Names and values need not be valid JSON; of a name that stands there twice, the last
    counts. Raises `Unsalvageable`, also if the text is larger than 1 MiB.
    """
    members = {}
    for part in _cut(text, b"{}"):
        found = _MEMBER.fullmatch(part)
        if found is None:
            raise Unsalvageable
        name, value = found.groups()
        members[name] = value.strip()
    return members


def cut_array(text: bytes) -> list[bytes]:
    """The array's items as they were written. Raises `Unsalvageable`."""
    return _cut(text, b"[]")


def _cut(text: bytes, brackets: bytes) -> list[bytes]:
    """What stands between the commas of the outermost brackets; nothing if that is blank."""
    text = text.strip()
    if not len(brackets) <= len(text) <= _MAX_BYTES or text[:1] + text[-1:] != brackets:
        raise Unsalvageable
    parts = []
    start = place = 1
    end = len(text) - 1
    steps = iter(range(_MAX_STEPS))
    for _ in steps:
        place = _run_end(_TO_COMMA, text, place)
        if place == end or text[place] == ord(","):
            parts.append(text[start:place].strip())
            if place == end:
                return [] if parts == [b""] else parts
            start = place = place + 1
        else:
            place = _skip_nested(text, place, steps)
    raise Unsalvageable


def _skip_nested(text: bytes, place: int, steps: Iterator[int]) -> int:
    """Where the brackets that open here are all closed; takes a step for each run of them."""
    depth = 0
    for _ in steps:
        if opening := _OPENING.match(text, place):
            depth += opening.end() - place
            place = opening.end()
        elif depth and (closing := _CLOSING.match(text, place)):
            closed = min(closing.end() - place, depth)
            depth -= closed
            place += closed
        else:  # A string without an end, or an end without a beginning.
            raise Unsalvageable
        if not depth:
            return place
        place = _run_end(_TO_BRACKET, text, place)
    raise Unsalvageable


def _run_end(run: re.Pattern[bytes], text: bytes, place: int) -> int:
    found = run.match(text, place)
    if found is None or found.end() >= len(text):
        raise Unsalvageable
    return found.end()
