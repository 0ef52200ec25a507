"""The SQL of the reports. Functions take the caller's snapshot and change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Table,
    and_,
    case,
    distinct,
    func,
    literal,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from services.query.columns import Visitors
from services.query.quarters import split_into_days
from services.query.reports import Stretch
from services.query.repository import Selection, period_in, tallied
from services.query.session_sums import SESSION_SUMS, SessionDimension
from services.query.tables import (
    owners,
    product_sales,
    products,
    representatives,
    revenue,
    session_days,
    session_sums,
    sessions,
    visits,
)
from services.query.tallies import Measure

PRODUCT_MEASURES = (
    Measure.PRODUCT_VIEWS,
    Measure.PRODUCT_CLICKS,
    Measure.PRODUCT_ADDITIONS,
    Measure.PRODUCT_REMOVALS,
)


@dataclass(frozen=True, slots=True)
class Range:
    """Quarters of a store's figures."""

    generation: int
    store_uid: str
    first_quarter: int
    end_quarter: int
    """Not included."""

    def within(self, stretch: Stretch) -> Range:
        """The part that is the stretch."""
        return Range(self.generation, self.store_uid, stretch.first_quarter, stretch.end_quarter)

    def selecting(self, measures: Sequence[int], names: Sequence[str] = ()) -> Selection:
        """The tallies in it."""
        return Selection(
            self.generation, self.store_uid, self.first_quarter, self.end_quarter, measures, names
        )


@dataclass(frozen=True, slots=True)
class SessionSums:
    """What some sessions come to."""

    session_count: int = 0
    bounce_count: int = 0
    page_count: int = 0
    duration: int = 0
    """In microseconds."""

    def __add__(self, other: SessionSums) -> SessionSums:
        return SessionSums(*map(sum, zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class RevenueSums:
    """What orders come to, in `MONEY_UNIT`s."""

    order_count: int = 0
    gross: int = 0
    refund_count: int = 0
    refunded: int = 0
    cancellation_count: int = 0
    cancelled: int = 0

    def __add__(self, other: RevenueSums) -> RevenueSums:
        return RevenueSums(*map(sum, zip(astuple(self), astuple(other), strict=True)))


async def count_visitors(
    snapshot: AsyncConnection, asked: Range, stretches: Sequence[Stretch], previous: Stretch
) -> Visitors:
    """How many different people did something.

    In one go: to find out who did something takes longer than all that is asked of it.
    """
    quarter = visits.c.quarter
    period = case(
        (quarter < previous.end_quarter, literal(_PREVIOUS)),
        *(
            (quarter < stretch.end_quarter, stretch.first_period + period_in(quarter, stretch))
            for stretch in stretches
        ),
    ).label("period")
    # The one range follows the other.
    both = Range(
        asked.generation, asked.store_uid, previous.first_quarter, stretches[-1].end_quarter
    )
    subjects = (
        select(period, visits.c.subject).where(_in_range(visits, both)).distinct().cte("subjects")
    )
    # Who an id belongs to is looked up when asked, so what becomes known later holds for all
    # before.
    owner = func.coalesce(owners.c.user, subjects.c.subject)
    of_store = (asked.generation, asked.store_uid)
    people = (
        select(
            subjects.c.period, func.coalesce(representatives.c.representative, owner).label("who")
        )
        .select_from(
            subjects.outerjoin(owners, _of_subject(owners, of_store, subjects.c.subject)).outerjoin(
                representatives, _of_subject(representatives, of_store, owner)
            )
        )
        .distinct()
        .cte("people")
    )
    in_all = select(literal(_IN_ALL).label("period"), func.count(distinct(people.c.who))).where(
        people.c.period != _PREVIOUS
    )
    by_period = select(people.c.period, func.count()).group_by(people.c.period)
    found = {
        int(index): int(count)
        for index, count in await snapshot.execute(union_all(by_period, in_all))
    }
    period_count = stretches[-1].first_period + stretches[-1].period_count
    return Visitors(
        [found.get(index, 0) for index in range(period_count)],
        total=found[_IN_ALL],
        previous=found.get(_PREVIOUS, 0),
    )


async def sum_sessions(
    snapshot: AsyncConnection, asked: Range, stretch: Stretch
) -> dict[int, SessionSums]:
    """What the sessions come to that began in each period, by its index."""
    statement = (
        select(period_in(session_sums.c.quarter, stretch), *_sums_of(session_sums, SESSION_SUMS))
        .where(_in_range(session_sums, asked.within(stretch)))
        .group_by("period")
    )
    return {
        stretch.first_period + int(index): SessionSums(*map(int, sums))
        for index, *sums in await snapshot.execute(statement)
    }


async def rank_sessions(
    snapshot: AsyncConnection, asked: Range, dimension: SessionDimension, *, limit: int
) -> list[tuple[str, SessionSums]]:
    """What the sessions with each value of a dimension come to, the most sessions first.

    Whole days have their sums; of what is left at both ends, the sessions are summed.
    """
    first_day, end_day, edges = split_into_days(asked.first_quarter, asked.end_quarter)
    parts = [
        select(session_days.c.value, *(session_days.c[name] for name in SESSION_SUMS)).where(
            session_days.c.generation == asked.generation,
            session_days.c.store_uid == asked.store_uid,
            session_days.c.dimension == dimension,
            session_days.c.day >= first_day,
            session_days.c.day < end_day,
        )
    ]
    value = sessions.c[dimension.name.lower()].label("value")
    for first, end in edges:
        edge = Range(asked.generation, asked.store_uid, first, end)
        each = literal(1).label("session_count")
        sums = (sessions.c[name] for name in SESSION_SUMS[1:])
        parts.append(select(value, each, *sums).where(_in_range(sessions, edge)))
    found = union_all(*parts).subquery()
    count = func.sum(found.c.session_count)
    statement = (
        select(found.c.value, *(func.sum(found.c[name]) for name in SESSION_SUMS))
        .group_by(found.c.value)
        .having(count > 0)
        .order_by(count.desc(), found.c.value)
        .limit(limit)
    )
    return [
        (name, SessionSums(*map(int, sums))) for name, *sums in await snapshot.execute(statement)
    ]


async def sum_revenue(
    snapshot: AsyncConnection, asked: Range, stretch: Stretch, trusts: Sequence[int]
) -> dict[tuple[str, int], RevenueSums]:
    """What orders come to, by currency and index of the period."""
    statement = (
        select(
            revenue.c.currency, period_in(revenue.c.quarter, stretch), *_sums_of(revenue, _REVENUE)
        )
        .where(_in_range(revenue, asked.within(stretch)), revenue.c.trust.in_(trusts))
        .group_by(revenue.c.currency, "period")
    )
    return {
        (currency, stretch.first_period + int(index)): RevenueSums(*map(int, sums))
        for currency, index, *sums in await snapshot.execute(statement)
    }


async def rank_products_by_orders(
    snapshot: AsyncConnection, asked: Range, *, limit: int
) -> list[str]:
    """The products that the most orders hold."""
    column = product_sales.c
    total = func.sum(column.order_count)
    statement = (
        select(column.product_id)
        .where(_in_range(product_sales, asked))
        .group_by(column.product_id)
        .having(total > 0)
        .order_by(total.desc(), column.product_id)
        .limit(limit)
    )
    return list((await snapshot.execute(statement)).scalars())


async def rank_products_by_measure(
    snapshot: AsyncConnection, asked: Range, measure: Measure, *, limit: int
) -> list[str]:
    """The products that were counted most."""
    found = tallied(asked.selecting([measure]))
    statement = (
        select(found.c.name)
        .group_by(found.c.name)
        .order_by(func.sum(found.c.tally).desc(), found.c.name)
        .limit(limit)
    )
    return list((await snapshot.execute(statement)).scalars())


async def sum_product_measures(
    snapshot: AsyncConnection, asked: Range, product_ids: Sequence[str]
) -> dict[tuple[str, int], int]:
    """How often what happened to the products, by product and measure."""
    if not product_ids:
        return {}
    found = tallied(asked.selecting(PRODUCT_MEASURES, product_ids))
    statement = select(found.c.name, found.c.measure, func.sum(found.c.tally)).group_by(
        found.c.name, found.c.measure
    )
    return {
        (name, measure): int(tally) for name, measure, tally in await snapshot.execute(statement)
    }


async def sum_product_sales(
    snapshot: AsyncConnection, asked: Range, product_ids: Sequence[str]
) -> dict[tuple[str, str], tuple[int, int, int]]:
    """Orders, pieces and what they came to, by product and currency."""
    column = product_sales.c
    statement = (
        select(column.product_id, column.currency, *_sums_of(product_sales, _SALES))
        .where(_in_range(product_sales, asked), column.product_id.in_(product_ids))
        .group_by(column.product_id, column.currency)
        .order_by(column.product_id, column.currency)
    )
    return {
        (product_id, currency): (int(orders), int(quantity), int(amount))
        for product_id, currency, orders, quantity, amount in await snapshot.execute(statement)
    }


async def get_product_names(
    snapshot: AsyncConnection, asked: Range, product_ids: Sequence[str]
) -> dict[str, str]:
    """What the products are called, as far as any event said."""
    column = products.c
    statement = select(column.product_id, column.name).where(
        column.generation == asked.generation,
        column.store_uid == asked.store_uid,
        column.product_id.in_(product_ids),
    )
    return {row.product_id: row.name for row in await snapshot.execute(statement)}


def _in_range(table: Table, asked: Range) -> ColumnElement[bool]:
    return and_(
        table.c.generation == asked.generation,
        table.c.store_uid == asked.store_uid,
        table.c.quarter >= asked.first_quarter,
        table.c.quarter < asked.end_quarter,
    )


def _of_subject(
    table: Table, of_store: tuple[int, str], subject: ColumnElement[Any]
) -> ColumnElement[bool]:
    generation, store_uid = of_store
    return and_(
        table.c.generation == generation,
        table.c.store_uid == store_uid,
        table.c.subject == subject,
    )


def _sums_of(table: Table, columns: Sequence[str]) -> list[ColumnElement[int]]:
    return [func.sum(table.c[name]) for name in columns]


_REVENUE = (
    "order_count",
    "gross",
    "refund_count",
    "refunded",
    "cancellation_count",
    "cancelled",
)
_SALES = ("order_count", "quantity", "revenue")
# What stands for the range before and for the whole range, among the indices of periods.
_PREVIOUS, _IN_ALL = -1, -2
