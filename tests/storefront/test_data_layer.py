"""What a shop tells Google Analytics 4, as Shoptrail hears it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.async_api import BrowserContext

from services.ingest.catalogue import ENTRIES, schema_of
from services.ingest.plans import Schema
from tests.gateway.conftest import Mesh, Running
from tests.storefront.conftest import Shop, events_when

POT = {
    "item_id": "42",
    "item_name": "Pot",
    "item_brand": "Kyusu",
    "item_category": "Pots",
    "item_category2": "Clay",
    "item_variant": "brown",
    "price": 19.9,
    "quantity": 2,
    "index": 3,
    "coupon": "TEA",
}
CUP = {"item_id": "7", "item_name": "Cup", "price": "4.10"}
PRODUCT_POT = {
    "product_id": "42",
    "name": "Pot",
    "brand": "Kyusu",
    "category": "Pots/Clay",
    "variant": "brown",
    "price": 19.9,
    "quantity": 2,
    "coupon": "TEA",
    "position": 3,
}
PRODUCT_CUP = {"product_id": "7", "name": "Cup", "price": "4.10"}

SALE = {
    "transaction_id": "o-1",
    "affiliation": "Web",
    "value": 43.9,
    "tax": 8.34,
    "shipping": "4.90",
    "currency": "EUR",
    "coupon": "TEA",
    "items": [POT, CUP],
}
HEARD: list[tuple[str, dict[str, Any], list[tuple[str, dict[str, Any]]]]] = [
    ("search", {"search_term": "oolong"}, [("Products Searched", {"query": "oolong"})]),
    (
        "view_item_list",
        {"item_list_id": "l1", "item_list_name": "Pots", "items": [POT, CUP]},
        [
            (
                "Product List Viewed",
                {"list_id": "l1", "category": "Pots", "products": [PRODUCT_POT, PRODUCT_CUP]},
            )
        ],
    ),
    ("select_item", {"items": [CUP]}, [("Product Clicked", PRODUCT_CUP)]),
    (
        "view_item",
        {"currency": "EUR", "value": 4.1, "items": [CUP]},
        [("Product Viewed", {**PRODUCT_CUP, "currency": "EUR", "value": 4.1})],
    ),
    (
        "add_to_cart",
        {"currency": "EUR", "value": 43.9, "items": [POT, CUP]},
        [
            ("Product Added", {**PRODUCT_POT, "currency": "EUR"}),
            ("Product Added", {**PRODUCT_CUP, "currency": "EUR"}),
        ],
    ),
    ("remove_from_cart", {"items": [CUP]}, [("Product Removed", PRODUCT_CUP)]),
    ("add_to_wishlist", {"items": [CUP]}, [("Product Added to Wishlist", PRODUCT_CUP)]),
    (
        "view_cart",
        {"currency": "EUR", "value": 4.1, "items": [CUP]},
        [("Cart Viewed", {"currency": "EUR", "value": 4.1, "products": [PRODUCT_CUP]})],
    ),
    (
        "begin_checkout",
        {"currency": "EUR", "value": 4.1, "coupon": "TEA", "items": [CUP]},
        [
            (
                "Checkout Started",
                {"currency": "EUR", "value": 4.1, "coupon": "TEA", "products": [PRODUCT_CUP]},
            )
        ],
    ),
    (
        "add_shipping_info",
        {"shipping_tier": "Express"},
        [("Checkout Step Completed", {"step": "shipping", "shipping_method": "Express"})],
    ),
    (
        "add_payment_info",
        {"payment_type": "card"},
        [("Payment Info Entered", {"step": "payment", "payment_method": "card"})],
    ),
    (
        "purchase",
        SALE,
        [
            (
                "Order Completed",
                {
                    "order_id": "o-1",
                    "affiliation": "Web",
                    "revenue": 43.9,
                    # To the cent, though 43.9 + 8.34 + 4.90 is 57.13999999999999 in floats.
                    "total": "57.14",
                    "shipping": "4.90",
                    "tax": 8.34,
                    "currency": "EUR",
                    "coupon": "TEA",
                    "products": [PRODUCT_POT, PRODUCT_CUP],
                },
            )
        ],
    ),
    (
        "refund",
        {"transaction_id": "o-1", "value": 4.1, "currency": "EUR", "items": [CUP]},
        [
            (
                "Order Refunded",
                {"order_id": "o-1", "total": 4.1, "currency": "EUR", "products": [PRODUCT_CUP]},
            )
        ],
    ),
    (
        "select_promotion",
        {"promotion_id": "p1", "promotion_name": "Autumn", "creative_slot": "top"},
        [("Promotion Clicked", {"promotion_id": "p1", "name": "Autumn", "position": "top"})],
    ),
    ("scroll", {"percent": 90}, []),
]


@pytest.mark.parametrize("manner", ["gtag", "tag manager"])
async def test_each_event_of_ga4_becomes_one_of_ours(
    shop: Shop, mesh: Mesh, gateway: Running, visitor: BrowserContext, manner: str
) -> None:
    """The first half is told before the scripts are there, the other half after."""
    told = [[name, given] for name, given, _ in HEARD]
    half = len(told) // 2
    tell = (
        "function gtag() { dataLayer.push(arguments) }"
        "const tell = (name, given) => gtag('event', name, given);"
        if manner == "gtag"
        else "const tell = (event, given) => event === 'search' ? dataLayer.push({event, ...given})"
        " : dataLayer.push({event, ecommerce: given});"
    )
    early = f"""<script>window.dataLayer = [];{tell}
dataLayer.push({{"gtm.start": 1, event: "gtm.js"}}, null, 7, "text");
for (const [name, given] of {json.dumps(told[:half])}) tell(name, given);</script>"""
    adapter = f'<script async src="http://127.0.0.1:{gateway.port}/shoptrail-ga4.js"></script>'
    page = await visitor.new_page()
    await page.goto(shop.put("/", tag=early + shop.tag + adapter))
    await page.evaluate(
        "told => { for (const [name, given] of told) tell(name, given) }", told[half:]
    )

    expected = [event for _, _, heard in HEARD for event in heard]
    events = await events_when(mesh, len(expected) + 1)
    tracked = [event for event in events if event["type"] == "track"]
    assert sorted(((event["event"], event["properties"]) for event in tracked), key=str) == sorted(
        expected, key=str
    )
    schemas = {entry.name: Schema(schema_of(entry)) for entry in ENTRIES}
    for event in tracked:
        properties = json.dumps(event["properties"]).encode()
        assert not schemas[event["event"]].find_violations(properties)
