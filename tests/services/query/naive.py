"""The figures, worked out from all events at once in the plainest way there is."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from common.digest import digest_of
from shoptrail.ingest.v1.event_pb2 import Event
from tests.services.query.fake_ingest import ALIAS, IDENTIFY, PAGE, TRACK

PAUSE = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Told:
    """An event and what it says."""

    event: Event
    words: dict[str, Any]

    @property
    def time(self) -> datetime:
        return self.event.occur_time.ToDatetime(tzinfo=UTC)

    @property
    def place(self) -> tuple[datetime, bytes]:
        """The sequence in which things happened; of the same time, by the message's digest."""
        return self.time, digest_of(self.event.message_id)

    @property
    def properties(self) -> dict[str, Any]:
        found: dict[str, Any] = self.words.get("properties", {})
        return found

    @property
    def trust(self) -> int:
        """2 if the shop itself vouches for it, else 1."""
        return 2 if b"confirmed" in self.event.enrichment else 1

    def does(self, name: str) -> bool:
        return self.event.type == TRACK and self.event.name == name


def read(events: Iterable[Event]) -> list[Told]:
    """The events in the sequence in which they happened."""
    told = [Told(event, json.loads(event.payload, parse_float=Decimal)) for event in events]
    return sorted(told, key=lambda one: one.place)


def names_of(told: Sequence[Told]) -> Callable[[str, str], str]:
    """Says who is behind a user's and a browser's id: one name for all ids of a person."""
    owner: dict[str, tuple[datetime, bytes, str]] = {}
    one_person: list[set[str]] = []
    for one in told:
        user = one.event.user_id
        other = ""
        if one.event.type == IDENTIFY:
            other = one.event.anonymous_id
        elif one.event.type == ALIAS:
            other = one.words["previousId"]
            merged = {user, other}
            for group in [group for group in one_person if group & merged]:
                merged |= group
                one_person.remove(group)
            one_person.append(merged)
        if other and user:
            claim = one.time, digest_of("user", user), user
            owner[other] = min(claim, owner.get(other, claim))

    def name_of(user: str, browser: str) -> str:
        if not user and browser in owner:
            user = owner[browser][2]
        for group in one_person:
            if user in group:
                user = min(group)
        return f"user {user}" if user else f"browser {browser}"

    return name_of


def people(told: Sequence[Told]) -> list[str]:
    """Who did each of the things."""
    name_of = names_of(told)
    return [name_of(one.event.user_id, one.event.anonymous_id) for one in told]


def sessions(told: Sequence[Told]) -> list[list[Told]]:
    """What belongs together, for each browser."""
    found: list[list[Told]] = []
    for browser in {one.event.anonymous_id for one in told} - {""}:
        last = None
        for one in told:
            if one.event.anonymous_id != browser:
                continue
            campaign = campaign_of(one)
            if (
                last is None
                or one.time - last.time > PAUSE
                or (campaign and campaign != campaign_of(found[-1][0]))
            ):
                found.append([])
            found[-1].append(one)
            last = one
    return found


def campaign_of(one: Told) -> str:
    campaign = one.words.get("context", {}).get("campaign")
    return f"{campaign['source']} /  / {campaign['name']}" if campaign else ""


def path_of(one: Told) -> str:
    return str(one.words.get("context", {}).get("page", {}).get("path", ""))


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """What the ledger holds of an order."""

    order_id: str
    what: str
    time: datetime
    currency: str
    amount: Decimal
    trust: int


def ledger(told: Sequence[Told]) -> tuple[list[LedgerLine], dict[str, list[dict[str, Any]]]]:
    """The ledger's lines, and the products of each order that stands."""
    lines: list[LedgerLine] = []
    bought: dict[str, list[dict[str, Any]]] = {}
    for order_id, statements in statements_of_orders(told).items():
        completions = [one for one in statements if one.does("Order Completed")]
        if not completions:
            continue
        sale = most_trusted(completions)[0]
        updates = [
            one
            for one in statements
            if one.does("Order Updated")
            and one.trust == sale.trust
            and one.place > sale.place
            and "total" in one.properties
        ]
        worth = updates[-1] if updates else sale
        currency = worth.properties.get("currency") or sale.properties.get("currency") or "XXX"
        left = Decimal(worth.properties.get("total", 0))
        lines.append(LedgerLine(order_id, "sale", sale.time, currency, left, sale.trust))
        refunds = most_trusted([one for one in statements if one.does("Order Refunded")])
        cancellations = most_trusted([one for one in statements if one.does("Order Cancelled")])
        refund_ids = set()
        for one in sorted([*refunds, *cancellations[:1]], key=lambda one: one.place):
            time = max(one.time, sale.time)
            if one.does("Order Cancelled"):
                what, taken = "cancellation", left
            else:
                refund_id = one.properties.get("refund_id")
                if refund_id in refund_ids:
                    continue
                if refund_id:
                    refund_ids.add(refund_id)
                what, taken = "refund", min(left, Decimal(one.properties.get("total", left)))
            lines.append(LedgerLine(order_id, what, time, currency, taken, sale.trust))
            left -= taken
        if not cancellations:
            bought[order_id] = worth.properties.get("products") or sale.properties.get(
                "products", []
            )
    return lines, bought


def statements_of_orders(told: Sequence[Told]) -> dict[str, list[Told]]:
    """What was said of each order."""
    by_order: defaultdict[str, list[Told]] = defaultdict(list)
    for one in told:
        if one.event.type == TRACK and one.event.name.startswith("Order "):
            by_order[one.properties.get("order_id", "")].append(one)
    by_order.pop("", None)
    return by_order


def most_trusted(statements: Sequence[Told]) -> list[Told]:
    """Those of whoever is trusted most."""
    highest = max((one.trust for one in statements), default=0)
    return [one for one in statements if one.trust == highest]


def counts(told: Sequence[Told]) -> Counter[tuple[str, str]]:
    """How many events there are of each type and name."""
    return Counter(
        ("track", one.event.name) if one.event.type == TRACK else (_TYPES[one.event.type],) * 2
        for one in told
    )


_TYPES = {IDENTIFY: "identify", PAGE: "page", ALIAS: "alias"}
