"""Visitors are counted in the columns where those have all, and else in the figures."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, insert

from common.uid import new_uid
from services.query import change_repository
from services.query.column_keeper import ColumnKeeper
from services.query.quarters import quarter_of
from services.query.tables import visits
from shoptrail.ingest.v1.event_pb2 import Event
from shoptrail.query.v1 import query_pb2
from shoptrail.query.v1.report_pb2 import Interval
from tests.conftest import key_metadata
from tests.services.query.fake_ingest import IDENTIFY, NOON, happened, timestamp
from tests.services.query.scene import Scene

HOUR = timedelta(hours=1)


def did(store_uid: str, hour: int, browser: str, user: str = "") -> Event:
    event = happened(store_uid, at=NOON + hour * HOUR, of=IDENTIFY)
    event.anonymous_id, event.user_id = browser, user
    return event


async def count(scene: Scene) -> tuple[list[int], int, int]:
    """Visitors by hour, in all four hours, and in the four before."""
    report = await scene.query.CountVisitors(
        query_pb2.CountVisitorsRequest(
            store_uid=scene.store_uid,
            start_time=timestamp(NOON),
            end_time=timestamp(NOON + 4 * HOUR),
            interval=Interval.INTERVAL_HOUR,
        ),
        timeout=10,
        metadata=key_metadata("reports:read", store_uid=scene.store_uid),
    )
    return list(report.counts), report.visitor_count, report.previous_visitor_count


async def test_figures_and_columns_say_the_same_and_columns_are_asked_first(scene: Scene) -> None:
    await scene.project(
        did(scene.store_uid, -1, "b1"),
        did(scene.store_uid, 0, "b1", "u1"),
        did(scene.store_uid, 0, "b2"),
        did(scene.store_uid, 1, "b2", "u1"),
        did(scene.store_uid, 3, "b3"),
        did(new_uid("sto"), 3, "b4"),
    )
    expected = [1, 1, 0, 1], 2, 1
    by_figures = await count(scene)  # There is nothing in the columns yet.
    while await ColumnKeeper(scene.database, scene.columns).copy_page():
        pass
    of_store = visits.c.store_uid == scene.store_uid
    async with scene.database.begin() as transaction:
        await transaction.execute(delete(visits).where(of_store))
    by_columns = await count(scene)

    # What has expired isn't in the columns.
    async with scene.database.begin() as transaction:
        await transaction.execute(
            insert(visits).values(
                generation=change_repository.CARRIED,
                store_uid=scene.store_uid,
                quarter=quarter_of(NOON),
                subject=bytes(16),
            )
        )
    with_expired = await count(scene)

    assert by_figures == expected
    assert by_columns == expected
    assert with_expired == ([0, 0, 0, 0], 0, 0)


async def test_columns_that_are_behind_are_not_asked(scene: Scene) -> None:
    await scene.project(did(scene.store_uid, 0, "b1"))
    while await ColumnKeeper(scene.database, scene.columns).copy_page():
        pass
    await scene.project(did(scene.store_uid, 1, "b2"))

    assert await count(scene) == ([1, 1, 0, 0], 2, 0)
