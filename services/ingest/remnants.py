"""What may stay of an erased event, so that totals stay true: nothing that tells of the person.

Kept are its type and name, the quarter of an hour, products, amounts and the kind of device.
A text by which reports break something down, such as a page or a search, becomes `(erased)`,
so that its row moves there and no sum changes. Ids of orders become others, which lead nowhere.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any
from urllib.parse import urlsplit

import msgspec

from services.ingest.verdicts import EventType

ERASED = "(erased)"

_QUARTER = timedelta(minutes=15)
_HOUR = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_TEXT = 255
_PSEUDONYM = re.compile("erased-[0-9a-f]{24}")
_CURRENCY = re.compile("[A-Za-z]{3}")
_NUMBER = re.compile(r'"?-?\d{1,20}(\.\d{1,20})?([eE][+-]?\d{1,2})?"?')

# The ledger goes by the sequence of these, so they keep their time.
_ORDER_EVENTS = frozenset(
    (
        *("Order Completed", "Completed Order", "Order Updated", "Updated Order"),
        *("Order Refunded", "Order Cancelled"),
    )
)
_ORDER_IDS = (("order_id", "order"), ("refund_id", "refund"))
_PRODUCT_TEXTS = ("product_id", "sku", "id", "name", "brand", "category", "variant", "currency")
_PROMOTION_TEXTS = ("promotion_id", "name")
_COUPON_TEXTS = ("coupon", "coupon_id")
_NUMBERS = (
    *("price", "quantity", "position", "total", "revenue", "value", "subtotal", "shipping"),
    *("tax", "discount", "results_count", "result_count", "results", "number_of_results"),
)
_LISTED_PRODUCTS = 500


@dataclass(frozen=True, slots=True)
class Remnant:
    """What takes the place of an event."""

    name: str
    occur_time: datetime
    receive_time: datetime
    payload: bytes
    enrichment: bytes


class Pseudonyms:
    """Other ids for those of orders and refunds: the same for the same, as long as it is kept.

    They are drawn by lot, or made with a key that nobody keeps, so nothing leads back once this
    is gone.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key
        self._drawn: dict[tuple[str, str], str] = {}

    def put(self, kind: str, text: str, pseudonym: str) -> None:
        """Let an id have this pseudonym; itself if it is to stay as it is."""
        self._drawn[kind, text] = pseudonym

    def of(self, kind: str, text: str) -> str:
        """The pseudonym of an id. One that is a pseudonym stays: other events have it too."""
        if _PSEUDONYM.fullmatch(text):
            return text
        if self._key is None:
            return self._drawn.setdefault((kind, text), f"erased-{secrets.token_hex(12)}")
        made = blake2b(f"{kind}\0{text}".encode(), digest_size=12, key=self._key).hexdigest()
        return self._drawn.get((kind, text), f"erased-{made}")


def remnant_of(
    kind: int,
    *,
    name: str,
    occur_time: datetime,
    receive_time: datetime,
    payload: bytes,
    enrichment: bytes,
    pseudonyms: Pseudonyms,
    mark: str = "erased",
) -> Remnant:
    """What may stay of the event; `mark` says in it why there is no more."""
    members = _object(payload)
    properties, context = _member(members, "properties"), _member(members, "context")
    kept_context = _context_of(context, properties)
    left: dict[str, Any] = {"type": EventType(kind).name.lower(), mark: True}
    if kind == EventType.TRACK:
        left["event"] = name
        left["properties"] = _properties_of(name, properties, pseudonyms)
    elif name:
        name = left["name"] = ERASED
    if kept_context:
        left["context"] = kept_context
    return Remnant(
        name=name,
        occur_time=occur_time if name in _ORDER_EVENTS else _floor(occur_time, _QUARTER),
        receive_time=_floor(receive_time, _HOUR),
        payload=msgspec.json.encode(left),
        enrichment=_enrichment_of(enrichment),
    )


def orders_in(payload: bytes) -> dict[str, str]:
    """The ids of the order and of the refund that an event names, by kind."""
    properties = _member(_object(payload), "properties")
    return {kind: text for name, kind in _ORDER_IDS if (text := _text(properties, name))}


def with_other_order(payload: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Somebody else's event, which now names its order and refund by pseudonyms."""
    members = _object(payload)
    properties = _member(members, "properties")
    for name, kind in _ORDER_IDS:
        if text := _text(properties, name):
            properties[name] = msgspec.Raw(msgspec.json.encode(pseudonyms.of(kind, text)))
    members["properties"] = msgspec.Raw(msgspec.json.encode(properties))
    return msgspec.json.encode(members)


def _properties_of(
    name: str, properties: dict[str, msgspec.Raw], pseudonyms: Pseudonyms
) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for field, kind in _ORDER_IDS:
        if text := _text(properties, field):
            kept[field] = pseudonyms.of(kind, text)
    currency = _text(properties, "currency")
    if _CURRENCY.fullmatch(currency):
        kept["currency"] = currency
    kept |= _numbers_of(properties)
    if "Product" in name:
        kept |= _product_of(properties)
        if nested := _product_of(_member(properties, "product")):
            kept["product"] = nested
    if "Promotion" in name:
        kept |= {field: text for field in _PROMOTION_TEXTS if (text := _text(properties, field))}
    if "Coupon" in name and any(_text(properties, field) for field in _COUPON_TEXTS):
        kept["coupon"] = ERASED
    if _text(properties, "query"):
        kept["query"] = ERASED
    if products := _list(properties, "products"):
        kept["products"] = [_product_of(product) for product in products]
    elif properties.get("products", b"") and bytes(properties["products"]) == b"[]":
        kept["products"] = []
    return kept


def _product_of(product: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    texts = {field: text for field in _PRODUCT_TEXTS if (text := _text(product, field))}
    return texts | _numbers_of(product)


def _numbers_of(values: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    """Amounts and counts, digit by digit as they were."""
    return {
        field: values[field]
        for field in _NUMBERS
        if field in values and _NUMBER.fullmatch(bytes(values[field]).decode())
    }


def _context_of(
    context: dict[str, msgspec.Raw], properties: dict[str, msgspec.Raw]
) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    page = _member(context, "page")
    left: dict[str, str] = {}
    if _names_page(page, properties):
        left["path"] = ERASED
    host = _host(_text(page, "referrer") or _text(properties, "referrer"))
    if host and host != _host(_text(page, "url") or _text(properties, "url")):
        left["referrer"] = f"//{ERASED}"
    if left:
        kept["page"] = left
    campaign = _member(context, "campaign")
    if any(_text(campaign, part) for part in ("source", "medium", "name")) or (
        "utm_" in _text(page, "search")
    ):
        kept["campaign"] = {"source": ERASED}
    if agent := _agent_of(_text(context, "userAgent")):
        kept["userAgent"] = agent
    if (system := _text(_member(context, "device"), "type").lower()) in ("ios", "android"):
        kept["device"] = {"type": system}
    if country := _text(_member(context, "location"), "country"):
        is_code = len(country) <= 3 and country.isascii() and country.isalpha()
        kept["location"] = {"country": country if is_code else ERASED}
    return kept


def _agent_of(agent: str) -> str:
    """What tells the kind of device, and no more."""
    for mark in ("iPad", "Tablet", "Mobi"):
        if mark in agent:
            return f"Mozilla/5.0 ({mark})"
    return "Mozilla/5.0" if agent.startswith("Mozilla/") else ""


def _enrichment_of(enrichment: bytes) -> bytes:
    found = _object(enrichment) if enrichment else {}
    kept: dict[str, Any] = {
        name: found[name] for name in ("confirmed", "bot", "money") if name in found
    }
    for name in ("browser", "os"):
        if text := _text(_member(found, name), "name"):
            kept[name] = {"name": text}
    if text := _text(_member(found, "device"), "type"):
        kept["device"] = {"type": text}
    for name in ("campaign", "referrer"):
        if known := _member(found, name):
            kept[name] = dict.fromkeys(known, ERASED)
    return msgspec.json.encode(kept)


def _object(text: bytes) -> dict[str, msgspec.Raw]:
    """The members of a JSON object; none if it is anything else."""
    try:
        return msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _member(values: Mapping[str, msgspec.Raw], name: str) -> dict[str, msgspec.Raw]:
    return _object(bytes(values[name])) if name in values else {}


def _list(values: Mapping[str, msgspec.Raw], name: str) -> list[dict[str, msgspec.Raw]]:
    try:
        found = msgspec.json.decode(values.get(name, b"[]"), type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return [_object(bytes(entry)) for entry in found[:_LISTED_PRODUCTS]]


def _text(values: Mapping[str, msgspec.Raw], name: str) -> str:
    try:
        found = msgspec.json.decode(values.get(name, b"null"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        return ""
    return str(found).strip()[:_LONGEST_TEXT]


def _names_page(*places: Mapping[str, msgspec.Raw]) -> bool:
    for values in places:
        if _text(values, "path"):
            return True
        if url := _text(values, "url"):
            try:
                return bool(urlsplit(url).path)
            except ValueError:
                return False
    return False


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _floor(time: datetime, step: timedelta) -> datetime:
    return time - (time - _EPOCH) % step
