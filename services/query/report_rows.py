"""The SQL of the reports. Functions take the caller's snapshot and change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

from sqlalchemy import ColumnElement, Table, and_, distinct, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.query.reports import Stretch
from services.query.repository import period_in
from services.query.tables import (
    owners,
    product_sales,
    products,
    representatives,
    revenue,
    session_sums,
    sessions,
    tallies,
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


async def count_visitors(snapshot: AsyncConnection, asked: Range) -> int:
    """How many different people did something."""
    statement = select(func.count(distinct(_PERSON))).select_from(_VISITORS)
    return int(await snapshot.scalar(statement.where(_in_range(visits, asked))) or 0)


async def count_visitors_by_period(
    snapshot: AsyncConnection, asked: Range, stretch: Stretch
) -> dict[int, int]:
    """How many different people did something, by index of the period."""
    statement = (
        select(period_in(visits.c.quarter, stretch), func.count(distinct(_PERSON)))
        .select_from(_VISITORS)
        .where(_in_range(visits, asked.within(stretch)))
        .group_by("period")
    )
    return {
        stretch.first_period + int(index): int(count)
        for index, count in await snapshot.execute(statement)
    }


async def sum_sessions(
    snapshot: AsyncConnection, asked: Range, stretch: Stretch
) -> dict[int, SessionSums]:
    """What the sessions come to that began in each period, by its index."""
    statement = (
        select(period_in(session_sums.c.quarter, stretch), *_sums_of(session_sums, _SESSIONS))
        .where(_in_range(session_sums, asked.within(stretch)))
        .group_by("period")
    )
    return {
        stretch.first_period + int(index): SessionSums(*map(int, sums))
        for index, *sums in await snapshot.execute(statement)
    }


async def rank_sessions(
    snapshot: AsyncConnection, asked: Range, column: str, *, limit: int
) -> list[tuple[str, SessionSums]]:
    """What the sessions with each value of a column come to, the most sessions first."""
    value = sessions.c[column]
    statement = (
        select(value, func.count(), *_sums_of(sessions, _SESSIONS[1:]))
        .where(_in_range(sessions, asked))
        .group_by(value)
        .order_by(func.count().desc(), value)
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
    statement = (
        select(tallies.c.name)
        .where(_in_range(tallies, asked), tallies.c.measure == measure)
        .group_by(tallies.c.name)
        .order_by(func.sum(tallies.c.tally).desc(), tallies.c.name)
        .limit(limit)
    )
    return list((await snapshot.execute(statement)).scalars())


async def sum_product_measures(
    snapshot: AsyncConnection, asked: Range, product_ids: Sequence[str]
) -> dict[tuple[str, int], int]:
    """How often what happened to the products, by product and measure."""
    statement = (
        select(tallies.c.name, tallies.c.measure, func.sum(tallies.c.tally))
        .where(
            _in_range(tallies, asked),
            tallies.c.measure.in_(PRODUCT_MEASURES),
            tallies.c.name.in_(product_ids),
        )
        .group_by(tallies.c.name, tallies.c.measure)
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
_SESSIONS = ("session_count", "bounce_count", "page_count", "duration")
_OWNER = func.coalesce(owners.c.user, visits.c.subject)
# Who an id belongs to is looked up when asked, so what becomes known later holds for all before.
_VISITORS = visits.outerjoin(
    owners,
    and_(
        owners.c.generation == visits.c.generation,
        owners.c.store_uid == visits.c.store_uid,
        owners.c.subject == visits.c.subject,
    ),
).outerjoin(
    representatives,
    and_(
        representatives.c.generation == visits.c.generation,
        representatives.c.store_uid == visits.c.store_uid,
        representatives.c.subject == _OWNER,
    ),
)
_PERSON = func.coalesce(representatives.c.representative, _OWNER)
