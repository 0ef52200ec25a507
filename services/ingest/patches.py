"""Applies a JSON Patch (RFC 6902) to an event, digit by digit the same where it isn't changed."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import jsonpatch
import msgspec
from jsonpointer import JsonPointerException

PATCH_BYTES = 64 * 1024
"""The most that a patch may have."""

_MOST_OPERATIONS = 100
# An event can be doubled by one copy, and then by the next.
_MOST_COPIED_BYTES = 1024 * 1024

_decoder = msgspec.json.Decoder(float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number")
_REFUSALS = (jsonpatch.JsonPatchException, JsonPointerException, TypeError, ArithmeticError)


class PatchNotValid(ValueError):
    """The text is no JSON Patch; the message says why."""


class PatchRefused(ValueError):
    """The patch can't be applied to this event."""


class Patch:
    """A JSON Patch, ready to be applied."""

    def __init__(self, text: str) -> None:
        """Raises `PatchNotValid`."""
        if len(text.encode()) > PATCH_BYTES:
            raise PatchNotValid(f"may have {PATCH_BYTES} bytes")
        try:
            operations = _decoder.decode(text)
            checked = jsonpatch.JsonPatch(operations)
        except (msgspec.DecodeError, RecursionError):
            raise PatchNotValid("is not JSON") from None
        except _REFUSALS as fault:
            raise PatchNotValid(f"is no JSON Patch: {fault}"[:500]) from None
        if not 1 <= len(checked.patch) <= _MOST_OPERATIONS:
            raise PatchNotValid(f"must have 1 to {_MOST_OPERATIONS} operations")
        self._operations = [(operation["op"], operation) for operation in checked.patch]

    def apply(self, payload: bytes) -> bytes:
        """The event after the patch; raises `PatchRefused`.

        An event that isn't JSON can only be replaced as a whole.
        """
        event: Any
        try:
            event = _decoder.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ArithmeticError):
            event = None
        try:
            for name, operation in self._operations:
                event = jsonpatch.JsonPatch([operation]).apply(event, in_place=True)
                if name == "copy" and len(_encoder.encode(event)) > _MOST_COPIED_BYTES:
                    raise PatchRefused
            return _encoder.encode(event)
        except (*_REFUSALS, msgspec.EncodeError, UnicodeEncodeError, RecursionError):
            raise PatchRefused from None
