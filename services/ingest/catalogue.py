"""The built-in catalogue: the events of Segment's e-commerce spec, version 2, as JSON Schemas.

https://segment.com/docs/connections/spec/ecommerce/v2/

The spec says what properties mean and hardly which are needed. What is required
here is what an event is worth nothing without. SDKs write nulls for what they
don't have, so null is as good as missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

_TEXT = {"type": ["string", "number", "null"]}  # Shops have ids and coupons that are numbers.
_NUMBER = {"type": ["number", "string", "null"], "pattern": r"^-?[0-9]{1,15}(\.[0-9]{1,6})?$"}
_CURRENCY = {"type": ["string", "null"], "pattern": "^[A-Za-z]{3}$"}
_CHOICES = {
    "type": ["array", "null"],
    "items": {"type": "object", "properties": {"type": _TEXT, "value": _TEXT}},
}

_PRODUCT = (
    *("product_id", "sku", "category", "name", "brand", "variant", "price", "quantity"),
    *("coupon", "position", "url", "image_url"),
)
_ORDER = (
    *("order_id", "affiliation", "total", "revenue", "shipping", "tax", "discount", "coupon"),
    *("currency", "products"),
)
_COUPON = ("order_id", "cart_id", "coupon_id", "coupon", "coupon_name")
_SHARED = ("share_via", "share_message", "recipient")

_NUMBERS = frozenset(
    {"price", "quantity", "value", "revenue", "total", "subtotal", "shipping", "tax", "discount"}
)

_A_PRODUCT = ("product_id", "sku")
_AN_ORDER = ("order_id",)
_A_COUPON = ("coupon_id", "coupon", "coupon_name")


@dataclass(frozen=True, slots=True)
class Entry:
    """An event of the spec."""

    name: str
    properties: Sequence[str]
    aliases: Sequence[str] = ()
    """Its names before version 2."""
    needs: Sequence[str] = ()
    """Properties of which an event has at least one."""


ENTRIES: Sequence[Entry] = (
    Entry("Products Searched", ("query",), ("Searched Products",), ("query",)),
    Entry("Product List Viewed", ("list_id", "category", "products"), ("Viewed Product Category",)),
    Entry("Product List Filtered", ("list_id", "category", "filters", "sorts", "products")),
    Entry(
        "Promotion Viewed", ("promotion_id", "creative", "name", "position"), ("Viewed Promotion",)
    ),
    Entry(
        "Promotion Clicked",
        ("promotion_id", "creative", "name", "position"),
        ("Clicked Promotion",),
    ),
    Entry("Product Clicked", _PRODUCT, ("Clicked Product",), _A_PRODUCT),
    Entry("Product Viewed", (*_PRODUCT, "currency", "value"), ("Viewed Product",), _A_PRODUCT),
    Entry("Product Added", ("cart_id", *_PRODUCT), ("Added Product",), _A_PRODUCT),
    Entry("Product Removed", ("cart_id", *_PRODUCT), ("Removed Product",), _A_PRODUCT),
    Entry("Cart Viewed", ("cart_id", "products")),
    Entry("Checkout Started", ("value", *_ORDER), ("Started Order",)),
    Entry(
        "Checkout Step Viewed",
        ("checkout_id", "step", "shipping_method", "payment_method"),
        ("Viewed Checkout Step",),
    ),
    Entry(
        "Checkout Step Completed",
        ("checkout_id", "step", "shipping_method", "payment_method"),
        ("Completed Checkout Step",),
    ),
    Entry(
        "Payment Info Entered",
        ("checkout_id", "order_id", "step", "shipping_method", "payment_method"),
    ),
    Entry("Order Updated", _ORDER, ("Updated Order",), _AN_ORDER),
    Entry("Order Completed", ("checkout_id", "subtotal", *_ORDER), ("Completed Order",), _AN_ORDER),
    Entry("Order Refunded", ("order_id", "total", "currency", "products"), (), _AN_ORDER),
    Entry("Order Cancelled", _ORDER, (), _AN_ORDER),
    Entry("Coupon Entered", _COUPON, (), _A_COUPON),
    Entry("Coupon Applied", (*_COUPON, "discount"), (), _A_COUPON),
    Entry("Coupon Denied", (*_COUPON, "reason"), (), _A_COUPON),
    Entry("Coupon Removed", (*_COUPON, "discount"), (), _A_COUPON),
    Entry("Product Added to Wishlist", ("wishlist_id", "wishlist_name", *_PRODUCT), (), _A_PRODUCT),
    Entry(
        "Product Removed from Wishlist",
        ("wishlist_id", "wishlist_name", *_PRODUCT),
        (),
        _A_PRODUCT,
    ),
    Entry(
        "Wishlist Product Added to Cart",
        ("wishlist_id", "wishlist_name", "cart_id", *_PRODUCT),
        (),
        _A_PRODUCT,
    ),
    Entry("Product Shared", (*_SHARED, *_PRODUCT), (), _A_PRODUCT),
    Entry("Cart Shared", (*_SHARED, "cart_id", "products")),
    Entry(
        "Product Reviewed", ("product_id", "review_id", "review_body", "rating"), (), _A_PRODUCT[:1]
    ),
)

NAMES = frozenset(name for entry in ENTRIES for name in (entry.name, *entry.aliases))
"""All names that the catalogue knows, also those from before version 2."""


def schema_of(entry: Entry) -> bytes:
    """The JSON Schema of the event's `properties`."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {name: _schema_of_property(name) for name in entry.properties},
    }
    # Null is as good as missing for what may be left out, and not for what is needed.
    alternatives = [
        {"required": [name], "properties": {name: {"not": {"type": "null"}}}}
        for name in entry.needs
    ]
    if len(alternatives) == 1:
        schema["required"] = entry.needs
        schema["properties"][entry.needs[0]] = {"type": ["string", "number"]}
    elif alternatives:
        schema["anyOf"] = alternatives
    return msgspec.json.encode(schema)


@cache
def schemas() -> Mapping[str, bytes]:
    """The JSON Schemas by every name of their events."""
    return {
        name: schema
        for entry in ENTRIES
        for schema in (schema_of(entry),)
        for name in (entry.name, *entry.aliases)
    }


def _schema_of_property(name: str) -> dict[str, Any]:
    if name == "products":
        product = {"type": "object", "properties": {p: _schema_of_property(p) for p in _PRODUCT}}
        return {"type": ["array", "null"], "items": product}
    if name in ("filters", "sorts"):
        return _CHOICES
    if name == "currency":
        return _CURRENCY
    return _NUMBER if name in _NUMBERS else _TEXT
