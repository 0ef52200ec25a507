"""Answers `ReportCarts`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from common.errors import InvalidRequest
from services.query.amounts import as_amount
from services.query.answers.times import as_timestamps
from services.query.answers.trend import MOST_PERIODS
from services.query.columns import CartState, CartSums, EventColumns, Scope
from services.query.questions import (
    QuestionReader,
    read_breakdown_in,
    read_duration,
    read_filters,
)
from shoptrail.query.v1 import carts_pb2, report_pb2

_IDLE, _LEAST_IDLE, _LONGEST_IDLE = timedelta(hours=1), timedelta(minutes=1), timedelta(days=30)
_MOST_ROWS = 100


async def answer(
    request: carts_pb2.ReportCartsRequest,
    questions: QuestionReader,
    columns: EventColumns,
    *,
    now: datetime,
) -> carts_pb2.ReportCartsResponse:
    """What became of carts by `now`, but for `as_of`."""
    violations: dict[str, str] = {}
    filters = read_filters(request.filters, violations)
    breakdown = read_breakdown_in(request.breakdown, violations)
    idle = read_duration(
        request,
        "abandoned_after",
        violations,
        default=_IDLE,
        least=_LEAST_IDLE,
        longest=_LONGEST_IDLE,
    )
    question = questions.read(request, violations)
    if question.period_count > MOST_PERIODS:
        raise InvalidRequest(
            {"start_time": f"makes more than {MOST_PERIODS} periods up to the end"}
        )
    report = await columns.carts(
        Scope(question.store_uid, question.boundaries[0], question.boundaries[-1], filters),
        question.boundaries,
        previous_start=question.previous_start,
        now=now,
        idle=idle,
        breakdown=breakdown,
        limit=_MOST_ROWS,
    )
    return carts_pb2.ReportCartsResponse(
        period_times=as_timestamps(question),
        periods=[_as_figures(sums) for sums in report.periods],
        total=_as_figures(_sum_of(report.periods)),
        previous=_as_figures(report.previous),
        rows=[
            carts_pb2.CartRow(value=value, figures=_as_figures(sums))
            for value, sums in (report.rows if breakdown else ())
        ],
    )


def _sum_of(periods: Sequence[CartSums]) -> CartSums:
    counts: Counter[CartState] = Counter()
    values: Counter[tuple[CartState, str]] = Counter()
    for sums in periods:
        counts.update(sums.counts)
        values.update(sums.values)
    return CartSums(counts, values)


def _as_figures(sums: CartSums) -> carts_pb2.CartFigures:
    ordered, recovered, abandoned = (
        sums.counts.get(state, 0)
        for state in (CartState.ORDERED, CartState.RECOVERED, CartState.ABANDONED)
    )
    decided, left = ordered + recovered + abandoned, recovered + abandoned
    return carts_pb2.CartFigures(
        cart_count=sum(sums.counts.values()),
        ordered_count=ordered,
        recovered_count=recovered,
        abandoned_count=abandoned,
        emptied_count=sums.counts.get(CartState.EMPTIED, 0),
        open_count=sums.counts.get(CartState.OPEN, 0),
        abandoned_value=_as_money(sums, CartState.ABANDONED),
        recovered_value=_as_money(sums, CartState.RECOVERED),
        abandonment_rate=abandoned / decided if decided else None,
        recovery_rate=recovered / left if left else None,
    )


def _as_money(sums: CartSums, state: CartState) -> list[report_pb2.Money]:
    return [
        report_pb2.Money(currency=currency, amount=as_amount(amount))
        for (of, currency), amount in sorted(
            sums.values.items(), key=lambda value: (value[0][0].value, value[0][1])
        )
        if of is state
    ]
