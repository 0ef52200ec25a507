"""Weeks in the life of a made-up shop, the same each time but for when they end."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

PRODUCTS = (
    ("tea-1", "Assam, 250 g", "12.90"),
    ("tea-2", "Sencha, 100 g", "14.50"),
    ("tea-3", "Rooibos, 250 g", "9.90"),
    ("cup-1", "Cup, white", "18.00"),
    ("cup-2", "Cup, blue", "21.00"),
    ("pot-1", "Teapot, 1 l", "64.00"),
    ("pot-2", "Iron pot, 0.8 l", "89.00"),
    ("box-1", "Tasting box", "29.90"),
)
SOURCES: tuple[tuple[dict[str, str], str, int], ...] = (
    ({}, "", 5),
    ({"source": "newsletter", "medium": "email", "name": "november"}, "", 3),
    ({"source": "google", "medium": "cpc", "name": "teapots"}, "https://www.google.com/", 3),
    ({}, "https://www.google.com/", 4),
    ({}, "https://teaforum.example/", 2),
    ({"source": "instagram", "medium": "social", "name": "cups"}, "https://instagram.com/", 2),
)
AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/140.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15"
    " (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (iPad; CPU OS 18_0 like Mac OS X) AppleWebKit/605.1.15"
    " (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
)
TERMS = ("teapot", "assam", "matcha", "cup", "gift", "decaf", "iron pot")


def live(end: datetime, *, days: int, visits_a_day: int, seed: int = 7) -> Iterator[dict[str, Any]]:
    """The events of so many days, those of the last one up to `end`; not in order of time."""
    luck = random.Random(seed)  # noqa: S311 - a made-up shop
    number = 0
    for day in range(days):
        begin = end - timedelta(days=days - day)
        weekend = 1.35 if begin.weekday() >= 5 else 1.0
        growth = 0.7 + 0.6 * day / days
        for _ in range(round(visits_a_day * weekend * growth * luck.uniform(0.85, 1.15))):
            number += 1
            time = begin + timedelta(seconds=luck.uniform(0, 86_000))
            yield from _visit(luck, number, time)


def _visit(luck: random.Random, number: int, time: datetime) -> Iterator[dict[str, Any]]:
    regular = luck.random() < 0.35
    person = f"visitor-{luck.randrange(400) if regular else 10_000 + number}"
    (campaign, referrer, _) = luck.choices(SOURCES, weights=[weight for *_, weight in SOURCES])[0]
    context: dict[str, Any] = {
        "userAgent": luck.choices(AGENTS, weights=(5, 4, 1))[0],
        "location": {"country": luck.choice(("DE", "DE", "DE", "AT", "CH", "GB", "NL"))},
    }
    if campaign:
        context["campaign"] = campaign
    if referrer:
        context["page"] = {"referrer": referrer}
    sent = 0

    def event(name: str, kind: str = "track", /, **properties: Any) -> dict[str, Any]:
        nonlocal time, sent
        sent += 1
        time += timedelta(seconds=luck.uniform(4, 70))
        made = {
            "type": kind,
            "messageId": f"made-up-{number}-{sent}",
            "anonymousId": person,
            "timestamp": time.isoformat(),
            "context": context,
            "properties": properties,
        }
        return made | ({"event": name} if kind == "track" else {"name": name})

    product, name, price = luck.choices(PRODUCTS, weights=(9, 7, 6, 5, 4, 3, 2, 4))[0]
    path = luck.choice(("/", "/", "/tea", "/pots", f"/p/{product}"))
    yield event("Page", "page", path=path, url=f"https://shop.example{path}", referrer=referrer)
    if luck.random() < 0.22:
        term = luck.choice(TERMS)
        yield event("Products Searched", query=term, results_count=0 if term == "decaf" else 4)
    if luck.random() < 0.3:
        return
    yield event("Page", "page", path=f"/p/{product}", url=f"https://shop.example/p/{product}")
    viewed = {"product_id": product, "name": name, "price": float(price), "currency": "EUR"}
    yield event("Product Viewed", **viewed)
    if luck.random() < 0.62:
        return
    quantity = luck.choice((1, 1, 1, 2, 3))
    yield event("Product Added", **viewed, quantity=quantity)
    if luck.random() < 0.35:
        return
    yield event("Checkout Started", value=float(price) * quantity, currency="EUR")
    if luck.random() < 0.3:
        return
    yield event(
        "Order Completed",
        order_id=f"order-{number}",
        total=round(float(price) * quantity + 4.9, 2),
        currency="EUR",
        products=[{**viewed, "quantity": quantity}],
    )


def faulty(count: int) -> Iterator[dict[str, Any]]:
    """Events that are rejected: they have no name."""
    for number in range(count):
        yield {
            "type": "track",
            "messageId": f"nameless-{number}",
            "anonymousId": "visitor-1",
            "properties": {"product_id": "tea-1"},
        }
