"""Reads what the read models need from an event's payload, and is stopped by nothing in it.

The shape is that of Segment's tracking API; the fields of shop events are those of its
e-commerce specification: https://segment.com/docs/connections/spec/ecommerce/v2/
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

MONEY_UNIT = Decimal("0.0001")
"""Money is kept as a whole number of these: no currency has smaller ones."""

LARGEST_AMOUNT = 10**14
"""In `MONEY_UNIT`s: what is more is no amount, and sums of such fit into 64 bits."""

_TEXT_LENGTH = 255
_EXACT = Context(prec=40, rounding=ROUND_HALF_EVEN)
_NOTHING: dict[str, Any] = {}
# Of pages, hosts and user agents, the same few come again and again.
_REMEMBERED = 8192


class _Fields(msgspec.Struct, rename="camel"):
    """The parts that are read. Each may hold anything."""

    properties: Any = None
    context: Any = None
    previous_id: Any = None


class Payload(msgspec.Struct, frozen=True, gc=False):
    """An event's own words. What is missing, or isn't what it should be, is empty."""

    properties: dict[str, Any]
    context: dict[str, Any]
    previous_id: str


class Whereabouts(msgspec.Struct, frozen=True, gc=False):
    """Where something happened. What isn't known is empty."""

    page: str
    """The path of the page."""
    campaign: str
    """Source, medium and name of the campaign, parted by ` / `."""
    referrer: str
    """The host that led to the page, if it is another than the page's own."""
    country: str
    """The country that the event names."""


def _as_decimal(digits: str) -> Decimal | None:
    try:
        return Decimal(digits)
    except InvalidOperation:
        return None  # An exponent beyond what decimals can have.


# A number that no decimal can be stops the first, which is the quicker one.
_quick_decoder = msgspec.json.Decoder(_Fields, float_hook=Decimal)
_decoder = msgspec.json.Decoder(_Fields, float_hook=_as_decimal)


def read_payload(payload: bytes) -> Payload:
    """What the payload says; an empty one, if it can't be read at all."""
    try:
        try:
            fields = _quick_decoder.decode(payload)
        except InvalidOperation:
            fields = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return Payload(_NOTHING, _NOTHING, "")
    return Payload(
        properties=fields.properties if isinstance(fields.properties, dict) else _NOTHING,
        context=fields.context if isinstance(fields.context, dict) else _NOTHING,
        previous_id=_as_text(fields.previous_id),
    )


def text_in(values: Mapping[str, Any], *path: str) -> str:
    """The text at the path, at most 255 characters of it; empty if there is none."""
    # The most frequent first: one key, and a text there.
    found = values.get(path[0]) if len(path) == 1 else _value_in(values, path)
    return found.strip()[:_TEXT_LENGTH] if type(found) is str else _as_text(found)


def part_in(values: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """The object at the path; empty if there is none."""
    found = _value_in(values, path)
    return found if type(found) is dict else _NOTHING


def list_in(values: Mapping[str, Any], key: str) -> list[Any] | None:
    """The list under the key, if there is one."""
    found = values.get(key)
    return found if isinstance(found, list) else None


def money_in(values: Mapping[str, Any], key: str) -> int | None:
    """The amount under the key, in `MONEY_UNIT`s; None if there is no amount.

    A number or the text of one, rounded half to even. Less than nothing, and more
    than ten thousand million, is no amount.
    """
    number = number_in(values, key)
    if number is None or not 0 <= number <= LARGEST_AMOUNT * MONEY_UNIT:
        return None
    return int(_EXACT.divide(_EXACT.quantize(number, MONEY_UNIT), MONEY_UNIT))


def number_in(values: Mapping[str, Any], key: str) -> Decimal | None:
    """The number under the key, given as a number or as its text."""
    found = values.get(key)
    if isinstance(found, str) and len(found) <= 64:
        found = _as_decimal(found)
    if isinstance(found, bool) or not isinstance(found, int | Decimal):
        return None
    number = Decimal(found)
    return number if number.is_finite() else None


def whereabouts_of(payload: Payload) -> Whereabouts:
    """Where it happened. In one go, since there is one of each event."""
    context, properties = payload.context, payload.properties
    page = context.get("page")
    if type(page) is not dict:
        page = _NOTHING
    page_url, other_url = _as_text(page.get("url")), _as_text(properties.get("url"))
    path = _as_text(page.get("path"))
    if not path:
        path = _split(page_url)[1] if page_url else _as_text(properties.get("path"))
        if not path and not page_url and other_url:
            path = _split(other_url)[1]
    referrer = _as_text(page.get("referrer")) or _as_text(properties.get("referrer"))
    if referrer:
        host = _split(referrer)[0]
        referrer = "" if host == _split(page_url or other_url)[0] else host
    campaign = ""
    named = context.get("campaign")
    if type(named) is dict and named:
        parts = [_as_text(named.get(key)) for key in ("source", "medium", "name")]
        if any(parts):
            campaign = " / ".join(parts)[:_TEXT_LENGTH]
    if not campaign:
        search = _as_text(page.get("search"))
        campaign = _campaign_in(search) if "utm_" in search else ""
    location = context.get("location")
    country = _as_text(location.get("country")) if type(location) is dict else ""
    return Whereabouts(path, campaign, referrer, country)


@lru_cache(_REMEMBERED)
def _campaign_in(search: str) -> str:
    try:
        asked = parse_qs(search.removeprefix("?"), max_num_fields=50)
    except ValueError:
        return ""
    parts = [asked.get(f"utm_{key}", [""])[0] for key in ("source", "medium", "campaign")]
    return " / ".join(parts)[:_TEXT_LENGTH] if any(parts) else ""


def device_of(payload: Payload) -> str:
    """`mobile`, `tablet` or `desktop`, as far as the event lets on; else empty."""
    if text_in(payload.context, "device", "type").lower() in ("ios", "android"):
        return "mobile"
    return _device_in(text_in(payload.context, "userAgent"))


@lru_cache(_REMEMBERED)
def _device_in(agent: str) -> str:
    if "iPad" in agent or "Tablet" in agent:
        return "tablet"
    if "Mobi" in agent:
        return "mobile"
    return "desktop" if agent.startswith("Mozilla/") else ""


@lru_cache(_REMEMBERED)
def _split(url: str) -> tuple[str, str]:
    """Host and path of a URL; empty if it is none."""
    try:
        parts = urlsplit(url)
        return (parts.hostname or "")[:_TEXT_LENGTH], parts.path[:_TEXT_LENGTH]
    except ValueError:
        return "", ""


def _value_in(values: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = values
    for key in path:
        if type(found) is not dict:
            return None
        found = found.get(key)
    return found


def _as_text(value: Any) -> str:
    if type(value) is str:
        return value.strip()[:_TEXT_LENGTH]
    if value is None or isinstance(value, bool) or not isinstance(value, int | Decimal):
        return ""
    if isinstance(value, int) and abs(value) >= 10**18:
        return ""
    return str(value).strip()[:_TEXT_LENGTH]
