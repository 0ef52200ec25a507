"""Answers `ReportTrend`."""

from __future__ import annotations

from common.errors import InvalidRequest
from services.query.answers.times import as_timestamps
from services.query.columns import EventColumns, Scope
from services.query.questions import (
    QuestionReader,
    read_breakdown_in,
    read_filters,
    read_limit,
    read_step_in,
)
from shoptrail.query.v1 import trend_pb2

MOST_PERIODS = 400
_ROWS, _MOST_ROWS = 20, 100


async def answer(
    request: trend_pb2.ReportTrendRequest, questions: QuestionReader, columns: EventColumns
) -> trend_pb2.ReportTrendResponse:
    """Events and people over time, but for `as_of`."""
    violations: dict[str, str] = {}
    filters = read_filters(request.filters, violations)
    step = read_step_in(request.event, "event", violations) if request.event else None
    breakdown = read_breakdown_in(request.breakdown, violations)
    limit = read_limit(request.limit, violations, default=_ROWS, largest=_MOST_ROWS)
    question = questions.read(request, violations)
    if question.period_count > MOST_PERIODS:
        raise InvalidRequest(
            {"start_time": f"makes more than {MOST_PERIODS} periods up to the end"}
        )
    rows = await columns.trend(
        Scope(question.store_uid, question.boundaries[0], question.boundaries[-1], filters),
        question.boundaries,
        previous_start=question.previous_start,
        step=step,
        of=breakdown,
        limit=limit,
    )
    return trend_pb2.ReportTrendResponse(
        period_times=as_timestamps(question),
        rows=[
            trend_pb2.TrendRow(
                value=row.value,
                event_count=row.total.event_count,
                person_count=row.total.person_count,
                previous_event_count=row.previous.event_count,
                previous_person_count=row.previous.person_count,
                event_counts=[period.event_count for period in row.periods],
                person_counts=[period.person_count for period in row.periods],
            )
            for row in rows
        ],
    )
