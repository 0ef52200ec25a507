"""Reads what Ingest found out about an event: who vouches for it, and with what it was sent."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

_TEXT_LENGTH = 255
_REMEMBERED = 8192
_DEVICES = frozenset({"desktop", "mobile", "tablet"})


class _Named(msgspec.Struct, frozen=True):
    name: str = ""


class _Typed(msgspec.Struct, frozen=True):
    type: str = ""


class _Fields(msgspec.Struct):
    """The parts that are read."""

    browser: _Named = _Named()
    device: _Typed = _Typed()
    consent: Any = None
    confirmed: bool = False


class Surroundings(msgspec.Struct, frozen=True, gc=False):
    """With what an event was sent. What isn't known is empty."""

    browser: str = ""
    """The browser's name, such as `Firefox`."""
    device: str = ""
    """`mobile`, `tablet` or `desktop`."""
    consent: str = ""
    """The categories that the visitor agreed to, sorted and parted by commas; `none` if to none."""
    confirmed: bool = False
    """Whether the shop itself vouches for it."""


NOTHING_KNOWN = Surroundings()

_decoder = msgspec.json.Decoder(_Fields)


# Who sends one event sends more.
@lru_cache(_REMEMBERED)
def read_enrichment(enrichment: bytes) -> Surroundings:
    """What Ingest's JSON says; nothing, if there is none or it can't be read."""
    if not enrichment:
        return NOTHING_KNOWN
    try:
        fields = _decoder.decode(enrichment)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return NOTHING_KNOWN
    return Surroundings(
        browser=fields.browser.name[:_TEXT_LENGTH],
        device=fields.device.type if fields.device.type in _DEVICES else "",
        consent=_consent_in(fields.consent),
        confirmed=fields.confirmed,
    )


def _consent_in(consent: Any) -> str:
    """What Segment's `context.consent` comes to."""
    given = consent.get("categoryPreferences") if isinstance(consent, Mapping) else None
    if not isinstance(given, Mapping) or not given:
        return ""
    granted = sorted(str(name) for name, value in given.items() if value is True)
    return ", ".join(granted)[:_TEXT_LENGTH] or "none"
