"""What was made in storefronts' pages and never arrived, as the numbers of events tell."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta
from typing import Any, cast

import grpc
import pytest

from common.uid import new_uid
from services.query.column_keeper import ColumnKeeper
from services.query.duck import DuckColumns
from services.query.freshness import Cursor
from services.query.losses import MOST_LOST_AT_ONCE, Loss
from services.query.projection import fold
from shoptrail.ingest.v1.event_pb2 import Event
from shoptrail.query.v1 import loss_pb2 as pb
from shoptrail.query.v1.report_pb2 import Interval
from tests.conftest import key_metadata
from tests.services.query.fake_ingest import NOON, happened, timestamp
from tests.services.query.scene import Scene, violations_of

HOUR = timedelta(hours=1)
FIREFOX, EDGE, SAFARI = "Firefox", "Edge", "Safari"
STORE = new_uid("sto")


def numbered(
    number: object,
    *,
    visitor: object = "v1",
    at: datetime = NOON,
    agent: str = FIREFOX,
    store_uid: str = STORE,
) -> Event:
    """An event as the script numbers it."""
    context = {"shoptrail": {"visitor": visitor, "sequence": number}}
    event = happened(store_uid, at=at, payload=json.dumps({"context": context}).encode())
    # Ingest's word for what the user agent says.
    event.enrichment = json.dumps({"browser": {"name": agent}}).encode()
    return event


@pytest.fixture
async def columns() -> AsyncIterator[DuckColumns]:
    columns = DuckColumns()
    yield columns
    await columns.close()


async def losses_of(columns: DuckColumns, events: Iterable[Event]) -> list[Loss]:
    """What the hour from noon and the one after it have lost."""
    listed = list(events)
    for position, event in enumerate(listed, start=1):
        event.position = position
    projection = fold(listed, shard=0, after_position=0)
    await columns.add(Cursor(0, projection.position, None), projection.facts)
    return await columns.losses(STORE, [NOON, NOON + HOUR, NOON + 2 * HOUR])


async def test_what_arrives_in_any_order_and_more_than_once_is_not_lost(
    columns: DuckColumns,
) -> None:
    events = [numbered(number) for number in range(1, 40)]
    events += [numbered(number, visitor="v2", at=NOON + HOUR) for number in range(1, 10)]
    events += [numbered(7), numbered(7)]  # Two tabs may count at the same moment.
    random.Random(3).shuffle(events)  # noqa: S311 - no secret

    assert await losses_of(columns, events) == [
        Loss(0, "Firefox", 39, 0),
        Loss(1, "Firefox", 9, 0),
    ]


async def test_a_missing_number_counts_where_the_next_event_is(columns: DuckColumns) -> None:
    events = [
        *(numbered(number) for number in (3, 4, 7)),  # 1, 2, 5 and 6 are missing.
        numbered(9, at=NOON + HOUR),  # So is 8.
        numbered(1, visitor="v2", agent=EDGE),
        numbered(1, visitor="v3", at=NOON - HOUR, agent=SAFARI),
        numbered(3, visitor="v3", agent=SAFARI),
        numbered(12, visitor="v1", at=NOON + 2 * HOUR),  # After the range.
    ]

    assert await losses_of(columns, events) == [
        Loss(0, "Edge", 1, 0),
        Loss(0, "Firefox", 3, 4),
        Loss(0, "Safari", 1, 1),
        Loss(1, "Firefox", 1, 1),
    ]


async def test_what_is_no_number_tells_nothing_and_nobody_can_make_up_a_great_loss(
    columns: DuckColumns,
) -> None:
    no_numbers: list[object] = [0, -1, 1.5, True, None, "x", [1], 10**30]
    nobody: list[object] = ["", None, {}]
    events = [
        *map(numbered, no_numbers),
        *(numbered(1, visitor=wrong) for wrong in nobody),
        happened(STORE),
        happened(STORE, payload=b'{"context": {"shoptrail": 7}}'),
        numbered(10**9, visitor="liar", agent=""),
        numbered(5, store_uid=new_uid("sto")),
    ]

    assert await losses_of(columns, events) == [Loss(0, "other", 1, MOST_LOST_AT_ONCE)]


async def test_the_report_has_a_row_for_each_browser_and_heals_when_events_come_late(
    scene: Scene,
) -> None:
    uid = scene.store_uid
    await scene.project(
        numbered(1, store_uid=uid),
        numbered(4, store_uid=uid, at=NOON + HOUR),
        numbered(1, store_uid=uid, visitor="v2", agent=EDGE),
    )
    keeper = ColumnKeeper(scene.database, scene.columns)
    await keeper.copy_page()
    request = pb.ReportLossRequest(
        store_uid=uid,
        start_time=timestamp(NOON),
        end_time=timestamp(NOON + 2 * HOUR),
        interval=Interval.INTERVAL_HOUR,
    )
    asked: dict[str, Any] = {"timeout": 10, "metadata": key_metadata("reports:read", store_uid=uid)}

    report = await scene.query.ReportLoss(request, **asked)
    assert (report.arrived_count, report.lost_count, len(report.period_times)) == (3, 2, 2)
    assert report.as_of.position == 3
    firefox, edge = report.rows
    assert (firefox.browser, firefox.arrived_count, firefox.lost_count) == ("Firefox", 2, 2)
    assert (list(firefox.arrived_counts), list(firefox.lost_counts)) == ([1, 1], [0, 2])
    assert (edge.browser, list(edge.arrived_counts), edge.lost_count) == ("Edge", [1, 0], 0)

    await scene.project(numbered(2, store_uid=uid), numbered(3, store_uid=uid))
    await keeper.copy_page()
    healed = await scene.query.ReportLoss(request, **asked)
    assert (healed.arrived_count, healed.lost_count) == (5, 0)


async def test_everything_wrong_with_the_question_is_named(scene: Scene) -> None:
    request = pb.ReportLossRequest(store_uid="sto_x", time_zone="Mars", interval=cast(Any, 9))
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await scene.query.ReportLoss(
            request, timeout=5, metadata=key_metadata("reports:read", store_uid="sto_x")
        )

    assert sorted(violations_of(failure)) == ["interval", "store_uid", "time_zone"]
