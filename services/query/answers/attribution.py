"""Answers `ReportAttribution`."""

from __future__ import annotations

from datetime import timedelta

from services.query.amounts import as_amount
from services.query.columns import Dimension, EventColumns, Touch
from services.query.orders import Trust
from services.query.questions import (
    QuestionReader,
    read_breakdown_in,
    read_duration,
    read_filters,
    read_limit,
)
from shoptrail.query.v1 import attribution_pb2
from shoptrail.query.v1.attribution_pb2 import AttributionModel

_LOOKBACK, _LONGEST_LOOKBACK = timedelta(days=30), timedelta(days=366)
_ROWS, _MOST_ROWS = 100, 1000
_TOUCHES = {
    AttributionModel.ATTRIBUTION_MODEL_UNSPECIFIED: Touch.LAST,
    AttributionModel.ATTRIBUTION_MODEL_FIRST_TOUCH: Touch.FIRST,
    AttributionModel.ATTRIBUTION_MODEL_LAST_TOUCH: Touch.LAST,
}


async def answer(
    request: attribution_pb2.ReportAttributionRequest,
    questions: QuestionReader,
    columns: EventColumns,
) -> attribution_pb2.ReportAttributionResponse:
    """What led to orders, but for `as_of`."""
    violations: dict[str, str] = {}
    filters = read_filters(request.filters, violations)
    breakdown = read_breakdown_in(request.breakdown, violations)
    if request.model not in _TOUCHES:
        violations["model"] = "must be FIRST_TOUCH or LAST_TOUCH"
    if request.trust and request.trust not in set(map(int, Trust)):
        violations["trust"] = "must be CLAIMED or CONFIRMED"
    lookback = read_duration(
        request, "lookback", violations, default=_LOOKBACK, longest=_LONGEST_LOOKBACK
    )
    limit = read_limit(request.limit, violations, default=_ROWS, largest=_MOST_ROWS)
    scope = questions.read_scope(request, violations, filters=filters)
    found = await columns.attribute(
        scope,
        _TOUCHES[request.model],
        breakdown or Dimension.CAMPAIGN,
        lookback=lookback,
        trusts=[request.trust] if request.trust else list(Trust),
        limit=limit,
    )
    rows: dict[str, attribution_pb2.AttributionRow] = {}
    for one in found:
        row = rows.setdefault(one.value, attribution_pb2.AttributionRow(value=one.value))
        row.order_count += one.order_count
        row.revenue.add(
            currency=one.currency,
            order_count=one.order_count,
            gross=as_amount(one.gross),
            net=as_amount(one.net),
        )
    return attribution_pb2.ReportAttributionResponse(rows=rows.values())
