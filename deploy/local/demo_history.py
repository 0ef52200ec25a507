"""Makes up what happened in a shop on past days: believable, and the same whenever it is made up.

Each day follows from its date alone. So a history that is made up a week later has the
same events on the days that both cover, with the same ids, and only adds the new days.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

CURRENCY = "EUR"

_GOODS_FILE = Path(__file__).parents[2] / "gateway" / "web" / "storefront" / "demo" / "goods.json"
_VISITS_A_DAY = 64
_SHIPPING, _FREE_FROM = 490, 6000
_ORIGINS: Sequence[tuple[int, str, str]] = (
    # How often, the page's query, and the referrer.
    (38, "", ""),
    (27, "", "https://www.google.com/"),
    (14, "?utm_source=newsletter&utm_medium=email&utm_campaign=autumn", ""),
    (12, "?utm_source=instagram&utm_medium=social&utm_campaign=teapots", "https://instagram.com/"),
    (9, "", "https://tea.blog.example/best-oolongs"),
)
_AGENTS: Sequence[tuple[int, str]] = (
    (
        44,
        "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) AppleWebKit/605.1.15"
        " (KHTML, like Gecko) Version/19.1 Mobile/15E148 Safari/604.1",
    ),
    (
        33,
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36"
        " (KHTML, like Gecko) Chrome/146.0.0.0 Safari/537.36",
    ),
    (
        15,
        "Mozilla/5.0 (Linux; Android 16; Pixel 9) AppleWebKit/537.36"
        " (KHTML, like Gecko) Chrome/146.0.0.0 Mobile Safari/537.36",
    ),
    (8, "Mozilla/5.0 (Macintosh; Intel Mac OS X 15.7; rv:147.0) Gecko/20100101 Firefox/147.0"),
)
# Hours of a day, by how many visits begin in them.
_HOURS = (1, 1, 1, 1, 1, 2, 4, 7, 9, 10, 11, 12, 13, 11, 10, 10, 11, 13, 16, 20, 21, 17, 9, 4)
_SEARCHES = ("oolong", "green tea", "pot", "gift", "matcha", "kettle", "earl grey", "no caffeine")

Event = dict[str, Any]


@dataclass(slots=True)
class Totals:
    """What the reports must say of the history. Amounts are in cents."""

    events: Counter[str] = field(default_factory=Counter)
    """By name; those of other types than `track` by their type."""
    order_count: int = 0
    gross: int = 0
    refund_count: int = 0
    refunded: int = 0
    cancellation_count: int = 0
    cancelled: int = 0

    @property
    def net(self) -> int:
        """What is left."""
        return self.gross - self.refunded - self.cancelled


@dataclass(frozen=True, slots=True)
class History:
    """Events in the order of their times, and what they come to."""

    start: datetime
    end: datetime
    events: list[Event]
    totals: Totals


def make_history(*, until: date, days: int) -> History:
    """The last `days` days before `until`, by UTC. What would happen later is left out."""
    goods = json.loads(_GOODS_FILE.read_bytes())
    end = datetime(until.year, until.month, until.day, tzinfo=UTC)
    start = end - timedelta(days=days)
    events: list[Event] = []
    totals = Totals()
    for number in range(days):
        for visit in _visits_of(start.date() + timedelta(days=number), goods):
            events += visit.events_before(end, totals)
    for event in events:
        totals.events[event.get("event") or event["type"]] += 1
    events.sort(key=lambda event: str(event["timestamp"]))
    return History(start, end, events, totals)


def _visits_of(day: date, goods: list[dict[str, Any]]) -> Iterator[_Visit]:
    dice = random.Random(f"shoptrail/{day}")  # noqa: S311 - must not be unpredictable
    weekend = 1.25 if day.weekday() >= 5 else 1.0
    # Tea sells in winter, and twice a year there is a sale.
    season = 1 + 0.35 * math.cos((day.timetuple().tm_yday - 15) / 365 * 2 * math.pi)
    sale = 1.9 if day.timetuple().tm_yday % 180 in (150, 151) else 1.0
    count = round(_VISITS_A_DAY * weekend * season * sale * dice.uniform(0.85, 1.15))
    for number in range(count):
        yield _Visit(day, number, goods)


class _Visit:
    """One visit: what is seen, and perhaps bought."""

    def __init__(self, day: date, number: int, goods: list[dict[str, Any]]) -> None:
        self._dice = dice = random.Random(f"shoptrail/{day}/{number}")  # noqa: S311
        self._goods = goods
        self._id = f"{day:%Y%m%d}-{number}"
        self._visitor = self._find_visitor(day)
        (hour,) = dice.choices(range(24), _HOURS)
        self._time = datetime(day.year, day.month, day.day, hour, tzinfo=UTC) + timedelta(
            seconds=dice.uniform(0, 3000)
        )
        ((_, self._query, self._referrer),) = dice.choices(
            _ORIGINS, [weight for weight, *_ in _ORIGINS]
        )
        (self._agent,) = dice.choices(
            [agent for _, agent in _AGENTS], [weight for weight, _ in _AGENTS]
        )
        self._user = ""
        self._path = "/"
        self._made: list[Event] = []
        self._money: list[tuple[datetime, str, int]] = []
        self._go()

    def events_before(self, end: datetime, totals: Totals) -> list[Event]:
        """The visit's events until then; adds to the totals what those come to."""
        for time, kind, cents in self._money:
            if time >= end:
                continue
            if kind == "order":
                totals.order_count += 1
                totals.gross += cents
            elif kind == "refund":
                totals.refund_count += 1
                totals.refunded += cents
            else:
                totals.cancellation_count += 1
                totals.cancelled += cents
        return [event for event in self._made if event["timestamp"] < end.isoformat()]

    def _find_visitor(self, day: date) -> str:
        """A third have been here before, within a month."""
        if self._dice.random() < 0.34:
            before = day - timedelta(days=self._dice.randint(1, 30))
            return f"visitor-{before:%Y%m%d}-{self._dice.randrange(30)}"
        return f"visitor-{self._id}"

    def _go(self) -> None:
        dice = self._dice
        self._page("/" if dice.random() < 0.7 else "/products")
        if dice.random() < 0.44:
            return
        if dice.random() < 0.2:
            query = dice.choice(_SEARCHES)
            self._page("/search")
            self._track("Products Searched", {"query": query})
        else:
            listed = dice.sample(self._goods, 6)
            products = [_product_of(good) for good in listed]
            self._track("Product List Viewed", {"list_id": "all", "products": products})
        cart = self._look_around()
        if not cart:
            return
        self._page("/cart")
        self._track("Cart Viewed", {"cart_id": self._id, "products": _lines_of(cart)})
        if dice.random() < 0.58:
            self._check_out(cart)

    def _look_around(self) -> list[tuple[dict[str, Any], int]]:
        dice = self._dice
        cart: list[tuple[dict[str, Any], int]] = []
        # The first in the list are liked best.
        weights = [1 / (place + 1.5) for place in range(len(self._goods))]
        for good in {good["id"]: good for good in dice.choices(self._goods, weights, k=3)}.values():
            if dice.random() < 0.75:
                self._page(f"/products/{good['id']}")
                price = _amount(good["price"])
                self._track(
                    "Product Viewed", {**_product_of(good), "currency": CURRENCY, "value": price}
                )
                if dice.random() < 0.11:
                    (quantity,) = dice.choices((1, 2, 3), (8, 3, 1))
                    cart.append((good, quantity))
                    facts = {"cart_id": self._id, **_product_of(good), "quantity": quantity}
                    self._track("Product Added", {**facts, "currency": CURRENCY})
        return cart

    def _check_out(self, cart: list[tuple[dict[str, Any], int]]) -> None:
        dice = self._dice
        goods = sum(good["price"] * quantity for good, quantity in cart)
        discount = goods // 10 if dice.random() < 0.12 else 0
        shipping = 0 if goods - discount >= _FREE_FROM else _SHIPPING
        total = goods - discount + shipping
        order = {
            "order_id": f"order-{self._id}",
            "subtotal": _amount(goods - discount),
            "discount": _amount(discount),
            "shipping": _amount(shipping),
            "total": _amount(total),
            "currency": CURRENCY,
            "products": _lines_of(cart),
            **({"coupon": "TEATIME"} if discount else {}),
        }
        self._page("/checkout")
        if discount:
            coupon = {"cart_id": self._id, "coupon_id": "TEATIME"}
            self._track("Coupon Applied", {**coupon, "discount": _amount(discount)})
        self._track("Checkout Started", {**order, "value": order["total"]})
        if dice.random() < 0.22:
            return
        method = dice.choice(("card", "card", "paypal", "invoice"))
        facts = {"order_id": order["order_id"], "payment_method": method}
        self._track("Payment Info Entered", facts)
        if dice.random() < 0.12:
            return
        self._user = f"customer-{self._visitor.removeprefix('visitor-')}"
        self._add({"type": "identify", "traits": {"customer": True}})
        self._track("Order Completed", order)
        self._money.append((self._time, "order", total))
        self._page("/thanks")
        self._regret(order, cart, total)

    def _regret(
        self, order: dict[str, Any], cart: list[tuple[dict[str, Any], int]], total: int
    ) -> None:
        """Some orders are cancelled within hours, some refunded within days, in part or whole."""
        dice = self._dice
        facts = {"order_id": order["order_id"], "currency": CURRENCY}
        if dice.random() < 0.015:
            self._time += timedelta(hours=dice.uniform(0.2, 8))
            self._track("Order Cancelled", {**facts, "total": order["total"]})
            self._money.append((self._time, "cancellation", total))
        elif dice.random() < 0.05:
            good, _ = dice.choice(cart)
            cents = total if dice.random() < 0.6 else min(good["price"], total)
            self._time += timedelta(days=dice.uniform(2, 12))
            refund = {**facts, "refund_id": f"refund-{self._id}", "total": _amount(cents)}
            self._track("Order Refunded", refund)
            self._money.append((self._time, "refund", cents))

    def _page(self, path: str) -> None:
        self._path = path
        self._add({"type": "page", "properties": {"path": path}})

    def _track(self, event: str, properties: dict[str, Any]) -> None:
        self._add({"type": "track", "event": event, "properties": properties})

    def _add(self, event: Event) -> None:
        first = not self._made
        self._time += timedelta(seconds=self._dice.uniform(2, 70))
        page = {
            "url": f"https://shop.example{self._path}{self._query if first else ''}",
            "path": self._path,
            "search": self._query if first else "",
            "referrer": self._referrer if first else "",
        }
        event |= {
            "messageId": f"demo-{self._id}-{len(self._made)}",
            "anonymousId": self._visitor,
            "timestamp": self._time.isoformat(),
            "context": {"page": page, "userAgent": self._agent, "channel": "browser"},
        }
        if self._user:
            event["userId"] = self._user
        self._made.append(event)


def _product_of(good: dict[str, Any]) -> dict[str, Any]:
    return {
        "product_id": good["id"],
        "name": good["name"],
        "category": good["category"],
        "price": _amount(good["price"]),
    }


def _lines_of(cart: list[tuple[dict[str, Any], int]]) -> list[dict[str, Any]]:
    return [{**_product_of(good), "quantity": quantity} for good, quantity in cart]


def _amount(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"
