"""Free-form analysis of events: by what it may be asked for, whatever answers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol

from services.query.freshness import Cursor
from services.query.losses import Loss
from services.query.projection import Fact


class Dimension(Enum):
    """What of an event can be looked at, besides its properties."""

    PAGE = "page"
    CAMPAIGN = "campaign"
    REFERRER = "referrer"
    DEVICE = "device"
    COUNTRY = "country"
    BROWSER = "browser"
    CONSENT = "consent"
    TRUST = "trust"


@dataclass(frozen=True, slots=True)
class Property:
    """A property of an event, by its path."""

    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """Takes events of which a dimension or property is a certain text."""

    of: Dimension | Property
    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """Events of a type, of a name if it is one of `track`, and on a page if one is given."""

    type: int
    name: str
    page: str = ""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which of a store's events are looked at."""

    store_uid: str
    start_time: datetime
    end_time: datetime
    """Not included."""
    filters: Sequence[Filter] = ()


@dataclass(frozen=True, slots=True)
class FunnelRow:
    """How many people got how far."""

    value: str
    """Of the breakdown, in each person's first event of the first step; empty without one."""
    person_counts: Sequence[int]
    """Of each step."""


@dataclass(frozen=True, slots=True)
class BreakdownRow:
    """How often something happened with one value."""

    value: str
    event_count: int
    person_count: int


@dataclass(frozen=True, slots=True)
class Cohort:
    """People who did something for the first time in one period."""

    person_count: int
    return_counts: Sequence[int]
    """How many of them did something again in the same period, in the next, and so on."""


@dataclass(frozen=True, slots=True)
class PropertyDescription:
    """What is known of a property of the events of one name."""

    name: str
    event_count: int
    types: tuple[str, ...]
    """Sorted: `array`, `boolean`, `null`, `number`, `object` or `string`."""
    previous_event_count: int
    """In the range of the same length before."""
    previous_types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EventDescription:
    """What is known of the events of one type and name."""

    type: int
    name: str
    event_count: int
    previous_event_count: int
    """In the range of the same length before."""
    first_time: datetime | None
    """None if it happened in the range before only."""
    last_time: datetime | None
    properties: Sequence[PropertyDescription]
    """The most frequent first."""


@dataclass(frozen=True, slots=True)
class Occurrences:
    """How often something happened, and to how many people."""

    event_count: int = 0
    person_count: int = 0


@dataclass(frozen=True, slots=True)
class TrendRow:
    """How often something happened with one value, over time."""

    value: str
    total: Occurrences
    previous: Occurrences
    """In the range before."""
    periods: Sequence[Occurrences]


@dataclass(frozen=True, slots=True)
class Visitors:
    """How many people did something."""

    periods: Sequence[int]
    total: int
    """In all periods together; who came in several counts once."""
    previous: int
    """In the range before."""


class CartState(Enum):
    """What became of a cart."""

    OPEN = "open"
    ORDERED = "ordered"
    RECOVERED = "recovered"
    ABANDONED = "abandoned"
    EMPTIED = "emptied"


@dataclass(frozen=True, slots=True)
class CartSums:
    """How many carts are in which state, and what they come to."""

    counts: Mapping[CartState, int]
    values: Mapping[tuple[CartState, str], int]
    """By state and currency, in `MONEY_UNIT`s."""


@dataclass(frozen=True, slots=True)
class CartReport:
    """What became of carts: in each period, in the range before, and by value."""

    periods: Sequence[CartSums]
    previous: CartSums
    rows: Sequence[tuple[str, CartSums]]
    """By value of the breakdown, the most carts first."""


class Touch(Enum):
    """Which of the things that led to an order it is put down to."""

    FIRST = "first"
    LAST = "last"


@dataclass(frozen=True, slots=True)
class Attribution:
    """What the orders come to that are put down to a value, in one currency."""

    value: str
    currency: str
    order_count: int
    gross: int
    net: int


@dataclass(frozen=True, slots=True)
class SoldOrder:
    """An order as the ledger has it."""

    order_id: str
    time: datetime
    trust: int
    currency: str
    gross: int
    """In `MONEY_UNIT`s, as `taken`."""
    taken: int
    """By refunds and a cancellation."""
    told_count: int
    """How often the source that said so most often said that it was completed."""
    payment_method: str
    browser: str
    consent: str


class EventColumns(Protocol):
    """A copy of the log's events that answers quickly what nobody foresaw.

    It can be thrown away: who keeps it brings it up to date from the listing. A person is one
    across all ids, by the same rules as in the figures.
    """

    async def cursors(self) -> list[Cursor]:
        """How far it has got with each shard."""

    async def add(self, cursor: Cursor, facts: Sequence[Fact]) -> None:
        """Add events that follow those of the shard, up to the cursor: all or none.

        Of a shard that it knows, the cursor's change is left as it was.
        """

    async def amend(self, shard: int, change_number: int, facts: Sequence[Fact]) -> None:
        """Put events in the places of those with their ids, up to a change: all or none.

        Of a shard that it knows.
        """

    async def clear(self) -> None:
        """Forget all events, and how far it has got."""

    async def tidy(self) -> None:
        """Leave nothing on disk of what was overwritten or cleared.

        Questions are answered meanwhile, but for a moment at its end.
        """

    async def funnel(
        self,
        scope: Scope,
        steps: Sequence[Step],
        *,
        window: timedelta,
        breakdown: Dimension | Property | None,
        limit: int,
    ) -> list[FunnelRow]:
        """How many people did the steps in this sequence, the most first.

        Other events may lie between. From the first step to the last takes `window` at most;
        whoever tries more than once counts with the attempt that got furthest.
        """

    async def retention(
        self,
        scope: Scope,
        boundaries: Sequence[datetime],
        *,
        first: Step | None,
        again: Step | None,
    ) -> list[Cohort]:
        """For each period, who did `first` for the first time ever, and who of them came back.

        To come back is to do `again` after that. None stands for any event. The filters of the
        scope hold for both.
        """

    async def break_down(
        self, scope: Scope, step: Step | None, of: Dimension | Property, *, limit: int
    ) -> list[BreakdownRow]:
        """How often what happened with each value, the most frequent first."""

    async def trend(
        self,
        scope: Scope,
        boundaries: Sequence[datetime],
        *,
        previous_start: datetime,
        step: Step | None,
        of: Dimension | Property | None,
        limit: int,
    ) -> list[TrendRow]:
        """How often what happened with each value in each period, the most frequent first.

        People are counted once in each period, and once in all. What happened in the range
        before alone is left out.
        """

    async def visitors(
        self, store_uid: str, boundaries: Sequence[datetime], *, previous_start: datetime
    ) -> Visitors:
        """How many people did something, between times on the grid of quarters of an hour."""

    async def carts(
        self,
        scope: Scope,
        boundaries: Sequence[datetime],
        *,
        previous_start: datetime,
        now: datetime,
        idle: timedelta,
        breakdown: Dimension | Property | None,
        limit: int,
    ) -> CartReport:
        """What became, by `now`, of the carts that began in the range and the one before.

        A cart is what a person adds from one order to the next. It is abandoned once nothing
        happens to it for longer than `idle`, and recovered if it is ordered after that. The
        breakdown is by its first addition, which is also what the filters are about.
        """

    async def attribute(
        self,
        scope: Scope,
        touch: Touch,
        of: Dimension | Property,
        *,
        lookback: timedelta,
        trusts: Sequence[int],
        limit: int,
    ) -> list[Attribution]:
        """What led to the orders completed in the range, the most orders first.

        That is the value, but an empty one, of the first or last event that the person did
        at most `lookback` before the order; empty if there was none.
        """

    async def list_orders(self, scope: Scope, order_keys: Sequence[bytes]) -> list[SoldOrder]:
        """The orders completed in the range, and those with these keys whenever they were."""

    async def timeline(
        self, store_uid: str, subject: bytes, *, after: tuple[datetime, int] | None, limit: int
    ) -> list[tuple[datetime, int]]:
        """When the events were, and their ids, of the person whose subject it is.

        The latest first, and behind the time and id of `after`.
        """

    async def describe(self, scope: Scope, *, limit: int) -> list[EventDescription]:
        """What events there are in the range and the one before, the most frequent first."""

    async def losses(self, store_uid: str, boundaries: Sequence[datetime]) -> list[Loss]:
        """How many numbered events arrived in each period, and how many did not, by browser."""

    async def close(self) -> None:
        """Let go of what is held."""
