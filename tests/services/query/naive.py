"""The figures, worked out from all events at once in the plainest way there is."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from services.query.payload import digest_of
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

    def does(self, name: str) -> bool:
        return self.event.type == TRACK and self.event.name == name


def read(events: Iterable[Event]) -> list[Told]:
    """The events in the sequence in which they happened."""
    told = [Told(event, json.loads(event.payload, parse_float=Decimal)) for event in events]
    return sorted(told, key=lambda one: one.place)


def people(told: Sequence[Told]) -> list[str]:
    """Who did each of the things: one name for all ids of a person."""
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
    names = []
    for one in told:
        user = one.event.user_id
        if not user and one.event.anonymous_id in owner:
            user = owner[one.event.anonymous_id][2]
        for group in one_person:
            if user in group:
                user = min(group)
        names.append(f"user {user}" if user else f"browser {one.event.anonymous_id}")
    return names


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

    what: str
    time: datetime
    currency: str
    amount: Decimal


def ledger(told: Sequence[Told]) -> tuple[list[LedgerLine], dict[str, list[dict[str, Any]]]]:
    """The ledger's lines, and the products of each order that stands."""
    by_order: defaultdict[str, list[Told]] = defaultdict(list)
    for one in told:
        if one.event.type == TRACK and one.event.name.startswith("Order "):
            by_order[one.properties.get("order_id", "")].append(one)
    by_order.pop("", None)
    lines: list[LedgerLine] = []
    bought: dict[str, list[dict[str, Any]]] = {}
    for order_id, statements in by_order.items():
        completions = [one for one in statements if one.does("Order Completed")]
        if not completions:
            continue
        sale = completions[0]
        updates = [
            one
            for one in statements
            if one.does("Order Updated") and one.place > sale.place and "total" in one.properties
        ]
        worth = updates[-1] if updates else sale
        currency = worth.properties.get("currency") or sale.properties.get("currency") or "XXX"
        left = Decimal(worth.properties.get("total", 0))
        lines.append(LedgerLine("sale", sale.time, currency, left))
        refund_ids = set()
        cancelled = False
        for one in statements:
            if one.does("Order Refunded"):
                refund_id = one.properties.get("refund_id")
                if refund_id in refund_ids:
                    continue
                if refund_id:
                    refund_ids.add(refund_id)
                taken = min(left, Decimal(one.properties.get("total", left)))
                lines.append(LedgerLine("refund", max(one.time, sale.time), currency, taken))
                left -= taken
            elif one.does("Order Cancelled") and not cancelled:
                cancelled = True
                lines.append(LedgerLine("cancellation", max(one.time, sale.time), currency, left))
                left = Decimal(0)
        if not cancelled:
            bought[order_id] = worth.properties.get("products") or sale.properties.get(
                "products", []
            )
    return lines, bought


def counts(told: Sequence[Told]) -> Counter[tuple[str, str]]:
    """How many events there are of each type and name."""
    return Counter(
        ("track", one.event.name) if one.event.type == TRACK else (_TYPES[one.event.type],) * 2
        for one in told
    )


_TYPES = {IDENTIFY: "identify", PAGE: "page", ALIAS: "alias"}
