"""Answers `ReportLoss`."""

from __future__ import annotations

from services.query.answers.times import as_timestamps
from services.query.columns import EventColumns
from services.query.losses import spread
from services.query.questions import QuestionReader
from shoptrail.query.v1 import loss_pb2


async def answer(
    request: loss_pb2.ReportLossRequest, questions: QuestionReader, columns: EventColumns
) -> loss_pb2.ReportLossResponse:
    """What arrived and what did not, but for `as_of`."""
    question = questions.read(request, {})
    losses = await columns.losses(question.store_uid, question.boundaries)
    rows = []
    for browser in {loss.browser for loss in losses}:
        arrived, lost = spread(losses, browser, period_count=question.period_count)
        rows.append(
            loss_pb2.LossRow(
                browser=browser,
                arrived_count=sum(arrived),
                lost_count=sum(lost),
                arrived_counts=arrived,
                lost_counts=lost,
            )
        )
    return loss_pb2.ReportLossResponse(
        period_times=as_timestamps(question),
        rows=sorted(rows, key=lambda row: (-row.arrived_count, row.browser)),
        arrived_count=sum(row.arrived_count for row in rows),
        lost_count=sum(row.lost_count for row in rows),
    )
