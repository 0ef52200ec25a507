"""Ranges of many days: whole days come from their sums, both ends from what those are made of."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from shoptrail.ingest.v1.event_pb2 import Event
from shoptrail.query.v1 import query_pb2
from shoptrail.query.v1.report_pb2 import Interval, Measure, SessionBreakdown
from tests.conftest import key_metadata
from tests.services.query import naive
from tests.services.query.fake_ingest import NOON, PAGE, happened, timestamp
from tests.services.query.scene import Scene

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def visits(store_uid: str) -> list[Event]:
    """Visits every five hours for a week, of two pages each, that many begin or end alike."""
    events = []
    for number in range(33):
        for page, minute in ((f"/{number % 3}", 0), (f"/{number % 4}", 5)):
            event = happened(
                store_uid,
                at=NOON + timedelta(hours=5 * number, minutes=minute),
                of=PAGE,
                payload=json.dumps({"context": {"page": {"path": page}}}).encode(),
            )
            event.anonymous_id = f"b{number % 2}"
            events.append(event)
    return events


async def ask(
    scene: Scene, breakdown: SessionBreakdown.ValueType, start: datetime, end: datetime
) -> dict[str, tuple[int, int]]:
    """Of each page, how many sessions and page views there were."""
    report = await scene.query.ReportSessions(
        query_pb2.ReportSessionsRequest(
            store_uid=scene.store_uid,
            start_time=timestamp(start),
            end_time=timestamp(end),
            interval=Interval.INTERVAL_HOUR,
            breakdown=breakdown,
        ),
        timeout=10,
        metadata=key_metadata("reports:read", store_uid=scene.store_uid),
    )
    return {row.name: (row.figures.session_count, row.figures.page_count) for row in report.rows}


ranges = pytest.mark.parametrize(
    ("first_hour", "hours"),
    [(0, 168), (12, 96), (12, 97), (11, 98), (13, 22), (3, 2), (10, 4), (12, 24), (36, 12)],
)


@ranges
async def test_a_range_counts_the_sessions_that_began_in_it(
    scene: Scene, first_hour: int, hours: int
) -> None:
    events = visits(scene.store_uid)
    # The second halves of all visits come late.
    await scene.project(*events[::2])
    await scene.project(*events[1::2])
    start = NOON + first_hour * HOUR
    end = start + hours * HOUR

    begun = [
        session for session in naive.sessions(naive.read(events)) if start <= session[0].time < end
    ]
    for breakdown, index in (
        (SessionBreakdown.SESSION_BREAKDOWN_ENTRY_PAGE, 0),
        (SessionBreakdown.SESSION_BREAKDOWN_EXIT_PAGE, -1),
    ):
        sessions, pages = Counter[str](), Counter[str]()
        for session in begun:
            page = naive.path_of(session[index])
            sessions[page] += 1
            pages[page] += len(session)
        assert await ask(scene, breakdown, start, end) == {
            page: (sessions[page], pages[page]) for page in sessions
        }


@ranges
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata"])
async def test_page_views_are_counted_in_any_range_and_zone(
    scene: Scene, zone: str, first_hour: int, hours: int
) -> None:
    events = visits(scene.store_uid)
    await scene.project(*events)
    start = NOON + first_hour * HOUR
    report = await scene.query.CountMeasure(
        query_pb2.CountMeasureRequest(
            store_uid=scene.store_uid,
            start_time=timestamp(start),
            end_time=timestamp(start + hours * HOUR),
            interval=Interval.INTERVAL_DAY if hours > 24 else Interval.INTERVAL_HOUR,
            time_zone=zone,
            measure=Measure.MEASURE_PAGE_VIEWS_BY_PATH,
        ),
        timeout=10,
        metadata=key_metadata("reports:read", store_uid=scene.store_uid),
    )

    begins = [time.ToDatetime(tzinfo=UTC) for time in report.period_times]
    end = begins[-1] + (DAY if hours > 24 else HOUR)
    seen = Counter(
        (naive.path_of(one), bisect_right(begins, one.time) - 1)
        for one in naive.read(events)
        if begins[0] <= one.time < end
    )
    counted = {
        (series.name, period): count
        for series in report.series
        for period, count in enumerate(series.counts)
        if count
    }
    assert counted == seen
    assert all(series.total_count == sum(series.counts) for series in report.series)
