"""The order ledger: what is known of an order, from all who told of it, and what that is worth.

An order is told of more than once: by a thank-you page that was loaded again, by two
tabs, by browser and server. All that is told is merged into one `Order`, in any sequence with
the same outcome, and the ledger's entries follow from that alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any

import msgspec

from services.query.payload import LARGEST_AMOUNT, list_in, money_in, number_in, text_in

UNKNOWN_CURRENCY = "XXX"
"""ISO 4217's code for none, of amounts without one."""

_MOST_LINES = 200
_MOST_REFUNDS = 500
_CURRENCY_LETTERS = 3
_MOST_OF_A_LINE = 1_000_000


class Trust(IntEnum):
    """Who says so."""

    CLAIMED = 1
    """Somebody with a key that stands in the storefront's pages."""
    CONFIRMED = 2
    """The shop's own server, with a secret key."""


class Telling(IntEnum):
    """What is told of an order."""

    COMPLETED = 1
    UPDATED = 2
    REFUNDED = 3
    CANCELLED = 4


TELLINGS = {
    "Order Completed": Telling.COMPLETED,
    "Completed Order": Telling.COMPLETED,
    "Order Updated": Telling.UPDATED,
    "Updated Order": Telling.UPDATED,
    "Order Refunded": Telling.REFUNDED,
    "Order Cancelled": Telling.CANCELLED,
}
"""The events that tell of orders, by their names."""


class Line(msgspec.Struct, frozen=True, array_like=True):
    """A product in an order."""

    product_id: str
    name: str
    quantity: int
    revenue: int
    """Of the whole line, in `MONEY_UNIT`s."""


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """Where a statement comes from. What isn't known is empty."""

    user: bytes = b""
    """Stands for the user."""
    anonymous: bytes = b""
    """Stands for the browser or app."""
    payment_method: str = ""
    browser: str = ""
    """The browser's name."""
    consent: str = ""


NOWHERE = Origin()


class Statement(msgspec.Struct, frozen=True, array_like=True):
    """What one event says of an order."""

    time: datetime
    mark: bytes
    """Orders statements of the same time, wherever they stand in the log."""
    trust: int
    amount: int | None
    """In `MONEY_UNIT`s; None if it names none."""
    currency: str
    refund_id: str
    lines: tuple[Line, ...]
    origin: Origin = NOWHERE

    @property
    def place(self) -> tuple[datetime, bytes]:
        return self.time, self.mark


class Order(msgspec.Struct, array_like=True):
    """All that matters of what was told of an order.

    Merging is commutative, and the size bounded: of each kind and trust only the statement
    that counts is kept, and of refunds the first of each id.
    """

    completed: dict[int, Statement] = {}
    """By trust, the earliest."""
    updated: dict[int, Statement] = {}
    """By trust, the latest that names an amount."""
    cancelled: dict[int, Statement] = {}
    """By trust, the earliest."""
    refunded: dict[int, dict[str, Statement]] = {}
    """By trust and refund, the earliest."""
    completion_counts: dict[int, int] = {}
    """By trust, how often it was said to be completed."""

    def add(self, telling: Telling, statement: Statement) -> None:
        """Take in what an event says."""
        trust = statement.trust
        if telling is Telling.COMPLETED:
            self.completed[trust] = _earlier(self.completed.get(trust), statement)
            self.completion_counts[trust] = self.completion_counts.get(trust, 0) + 1
        elif telling is Telling.CANCELLED:
            self.cancelled[trust] = _earlier(self.cancelled.get(trust), statement)
        elif telling is Telling.UPDATED:
            known = self.updated.get(trust)
            later = known is None or known.place < statement.place
            if statement.amount is not None and later:
                self.updated[trust] = statement
        else:
            refunds = self.refunded.setdefault(trust, {})
            name = f"#{statement.refund_id}" if statement.refund_id else statement.mark.hex()
            refunds[name] = _earlier(refunds.get(name), statement)
            if len(refunds) > _MOST_REFUNDS:
                del refunds[max(refunds, key=lambda one: (refunds[one].place, one))]


@dataclass(frozen=True, slots=True)
class Entry:
    """What the ledger holds of an order: the sale, or something that takes from it."""

    telling: Telling
    time: datetime
    currency: str
    trust: Trust
    amount: int
    """In `MONEY_UNIT`s, never negative."""


def entries_of(order: Order) -> list[Entry]:
    """The ledger's entries for the order, in the sequence in which they happened.

    The most trusted source that told of each kind is the one that counts. Refunds and a
    cancellation never take more than the order brought, and nothing is taken from an order
    that nobody said was completed.
    """
    sale = _most_trusted(order.completed)
    if sale is None:
        return []
    worth = _worth_of(order, sale)
    amount = worth.amount or 0
    currency = worth.currency if worth.currency != UNKNOWN_CURRENCY else sale.currency
    entries = [Entry(Telling.COMPLETED, sale.time, currency, Trust(sale.trust), amount)]
    takings = [(Telling.REFUNDED, statement) for statement in _refunds_of(order)]
    cancelled = _most_trusted(order.cancelled)
    if cancelled is not None:
        takings.append((Telling.CANCELLED, cancelled))
    left = amount
    for telling, statement in sorted(takings, key=lambda taking: (taking[1].place, taking[0])):
        whole = telling is Telling.CANCELLED or statement.amount is None
        taken = left if whole else min(left, statement.amount or 0)
        left -= taken
        # What is told of an order to be sold later happened with it at the earliest.
        time = max(statement.time, sale.time)
        entries.append(Entry(telling, time, currency, Trust(sale.trust), taken))
    return entries


def lines_of(order: Order) -> tuple[Line, ...]:
    """The products that were bought with the order; none if it is not completed, or cancelled."""
    sale = _most_trusted(order.completed)
    if sale is None or order.cancelled:
        return ()
    return _worth_of(order, sale).lines or sale.lines


def origin_of(order: Order) -> Origin:
    """Where those who said that it was completed said it: of each, what the most trusted knew."""
    known = [order.completed[trust].origin for trust in sorted(order.completed, reverse=True)]

    def first(name: str) -> Any:
        return next((found for one in known if (found := getattr(one, name))), None)

    given = {name: found for name in Origin.__struct_fields__ if (found := first(name))}
    return Origin(**given)


def read_statement(
    properties: Mapping[str, Any],
    *,
    time: datetime,
    mark: bytes,
    trust: Trust,
    origin: Origin = NOWHERE,
) -> Statement:
    """What an event's properties say of an order."""
    lines = _read_lines(properties)
    return Statement(
        time=time,
        mark=mark,
        trust=trust,
        amount=_read_amount(properties, lines),
        currency=read_currency(properties),
        refund_id=text_in(properties, "refund_id"),
        lines=lines,
        origin=origin,
    )


def product_id_of(product: Mapping[str, Any]) -> str:
    """How a product is known: by its id, or else its SKU."""
    return text_in(product, "product_id") or text_in(product, "sku") or text_in(product, "id")


def _worth_of(order: Order, sale: Statement) -> Statement:
    """The statement that says what the order is worth: a later update of the same trust."""
    update = order.updated.get(sale.trust)
    if update is not None and update.place > sale.place:
        return update
    return sale


def _refunds_of(order: Order) -> Iterable[Statement]:
    return order.refunded[max(order.refunded)].values() if order.refunded else ()


def _most_trusted(statements: Mapping[int, Statement]) -> Statement | None:
    return statements[max(statements)] if statements else None


def _earlier(known: Statement | None, new: Statement) -> Statement:
    return new if known is None or new.place < known.place else known


def _read_amount(properties: Mapping[str, Any], lines: tuple[Line, ...]) -> int | None:
    for key in ("total", "revenue", "value"):
        amount = money_in(properties, key)
        if amount is not None:
            return amount
    return sum(line.revenue for line in lines) if lines else None


def read_currency(properties: Mapping[str, Any]) -> str:
    """The code of the currency that is named; `XXX` if none is."""
    currency = text_in(properties, "currency").upper()
    named = len(currency) == _CURRENCY_LETTERS and currency.isascii() and currency.isalpha()
    return currency if named else UNKNOWN_CURRENCY


def _read_lines(properties: Mapping[str, Any]) -> tuple[Line, ...]:
    lines = []
    for product in (list_in(properties, "products") or [])[:_MOST_LINES]:
        if not isinstance(product, dict) or not (product_id := product_id_of(product)):
            continue
        given = number_in(product, "quantity")
        quantity = int(given) if given is not None and 0 <= given <= _MOST_OF_A_LINE else 1
        revenue = (money_in(product, "price") or 0) * quantity
        lines.append(
            Line(
                product_id=product_id,
                name=text_in(product, "name"),
                quantity=quantity,
                revenue=revenue if revenue <= LARGEST_AMOUNT else 0,
            )
        )
    return tuple(lines)
