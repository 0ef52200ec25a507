"""Compares the shop's own orders with those that events told of."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

from services.query.columns import SoldOrder
from services.query.order_lists import ListedOrder
from services.query.orders import UNKNOWN_CURRENCY


class Difference(IntEnum):
    """How the two sides of an order differ. The numbers are those of the contract."""

    MISSING = 1
    EXTRA = 2
    DOUBLED = 3
    WRONG_AMOUNT = 4


@dataclass(frozen=True, slots=True)
class ComparedOrder:
    """An order, as either side has it."""

    order_id: str
    listed: ListedOrder | None
    """As it stands first in the list."""
    listed_times: int
    told: SoldOrder | None
    in_range: bool
    """Whether it was told to be completed in the range."""

    @property
    def payment_method(self) -> str:
        return self._known("payment_method")

    @property
    def browser(self) -> str:
        return self._known("browser")

    @property
    def consent(self) -> str:
        return self._known("consent")

    @property
    def listed_currency(self) -> str:
        """What the list says, or else the events."""
        if self.listed is not None and self.listed.currency:
            return self.listed.currency
        return self.told.currency if self.told is not None else UNKNOWN_CURRENCY

    @property
    def differences(self) -> list[Difference]:
        """All ways in which it differs, in order."""
        found = []
        if self.told is None:
            found.append(Difference.MISSING)
        elif self.listed is None:
            found.append(Difference.EXTRA)
        if self.listed_times > 1 or (self.told is not None and self.told.told_count > 1):
            found.append(Difference.DOUBLED)
        if self.listed is not None and self.told is not None and not self._same_amount():
            found.append(Difference.WRONG_AMOUNT)
        return found

    def _same_amount(self) -> bool:
        assert self.listed is not None and self.told is not None  # noqa: S101 - for types
        same_currency = UNKNOWN_CURRENCY in (
            self.told.currency,
            self.listed.currency or UNKNOWN_CURRENCY,
        ) or (self.listed.currency == self.told.currency)
        return same_currency and self.listed.amount == self.told.gross

    def _known(self, name: str) -> str:
        """What the list says, or else the events."""
        said: str = getattr(self.listed, name) if self.listed is not None else ""
        if not said and self.told is not None:
            said = getattr(self.told, name)
        return said


@dataclass(slots=True)
class Counts:
    """How many orders there are, and how many differ."""

    listed: int = 0
    told: int = 0
    equal: int = 0
    differing: Counter[Difference] = field(default_factory=Counter)

    def add(self, order: ComparedOrder, differences: Iterable[Difference]) -> None:
        """Count an order."""
        self.listed += order.listed is not None
        self.told += order.in_range
        self.differing.update(differences)
        both = order.listed is not None and order.told is not None
        self.equal += both and Difference.WRONG_AMOUNT not in differences


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What comparing gives."""

    total: Counts
    by_payment_method: Mapping[str, Counts]
    by_browser: Mapping[str, Counts]
    by_consent: Mapping[str, Counts]
    listed_money: Mapping[str, int]
    """By currency, in `MONEY_UNIT`s."""
    told_money: Mapping[str, int]
    differences: list[tuple[ComparedOrder, Difference]]
    """In the order of the ids."""


def reconcile(
    listed: Iterable[ListedOrder],
    told: Iterable[SoldOrder],
    *,
    start_time: datetime,
    end_time: datetime,
) -> Reconciliation:
    """Compare a list with all orders told to be completed in the range, and those of the list."""
    first: dict[str, ListedOrder] = {}
    times: Counter[str] = Counter()
    for order in listed:
        first.setdefault(order.order_id, order)
        times[order.order_id] += 1
    known = {order.order_id: order for order in told}
    total = Counts()
    by_value: list[defaultdict[str, Counts]] = [defaultdict(Counts) for _ in range(3)]
    listed_money: Counter[str] = Counter()
    told_money: Counter[str] = Counter()
    differing: list[tuple[ComparedOrder, Difference]] = []
    for order_id in sorted(first.keys() | known.keys()):
        sold = known.get(order_id)
        compared = ComparedOrder(
            order_id,
            listed=first.get(order_id),
            listed_times=times[order_id],
            told=sold,
            in_range=sold is not None and start_time <= sold.time < end_time,
        )
        differences = compared.differences
        total.add(compared, differences)
        values = compared.payment_method, compared.browser, compared.consent
        for counts, value in zip(by_value, values, strict=True):
            counts[value].add(compared, differences)
        if compared.listed is not None:
            listed_money[compared.listed_currency] += compared.listed.amount
        if sold is not None:
            told_money[sold.currency] += sold.gross
        differing += [(compared, difference) for difference in differences]
    by_payment_method, by_browser, by_consent = by_value
    return Reconciliation(
        total,
        by_payment_method,
        by_browser,
        by_consent,
        listed_money,
        told_money,
        differing,
    )
