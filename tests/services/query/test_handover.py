"""What the projector has just listed goes straight into the columns, and is never out of date."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial

from common.db import Database
from common.uid import new_uid
from services.query.column_keeper import ColumnKeeper
from services.query.columns import Scope
from services.query.duck import DuckColumns
from services.query.freshness import Cursor, Sightings
from services.query.handover import Batch, Handover
from services.query.projection import Fact, fold
from services.query.projector import Projector
from tests.services.query.conftest import closing_columns
from tests.services.query.fake_ingest import NOON, FakeIngest, happened
from tests.services.query.scene import ReadingFrom
from tests.services.query.test_projector import following, until

STORE = new_uid("sto")


def facts_of(count: int, *, after: int = 0) -> list[Fact]:
    events = [happened(STORE, f"Event {number}") for number in range(count)]
    for position, event in enumerate(events, start=after + 1):
        event.position = position
    return fold(events, shard=0, after_position=after).facts


def batch(after: int, count: int, *, change: int = 0) -> Batch:
    facts = facts_of(count, after=after)
    return Batch(after, Cursor(0, after + count, NOON, change), facts)


def listed(position: int, *, change: int = 0) -> Cursor:
    return Cursor(0, position, NOON, change)


def test_what_follows_is_taken_in_one() -> None:
    handover = Handover()
    for after, count in ((0, 2), (2, 3), (5, 1)):
        handover.put(batch(after, count))

    taken = handover.take(listed(6), 2)

    assert taken is not None
    assert (taken.after_position, taken.cursor.position) == (2, 6)
    assert [fact.event.id for fact in taken.facts] == [3, 4, 5, 6]
    assert handover.take(listed(6), 6) is None


def test_what_does_not_follow_is_not_taken() -> None:
    handover = Handover()
    handover.put(batch(10, 2))

    assert handover.take(listed(12), 8) is None  # Something between is missing.
    assert handover.take(Cursor(1, 12, NOON), 10) is None  # Of another shard.
    assert handover.take(listed(12), 11) is None  # Half of it is known.


def test_what_has_been_overwritten_since_is_not_taken() -> None:
    handover = Handover()
    handover.put(batch(0, 2, change=3))

    assert handover.take(listed(2, change=4), 0) is None
    assert handover.take(listed(2, change=3), 0) is None  # Nor later.


def test_what_nobody_takes_is_forgotten() -> None:
    handover = Handover()
    few = facts_of(100)
    for number in range(300):
        position = number * 100
        handover.put(Batch(position, listed(position + 100), few))

    assert handover.take(listed(30_000), 0) is None
    assert handover.take(listed(30_000), 29_900) is not None


async def holds(columns: DuckColumns, count: int) -> bool:
    """Whether so many events are in the columns."""
    return sum(cursor.position for cursor in await columns.cursors()) >= count


@asynccontextmanager
async def kept(keeper: ColumnKeeper, projector: Projector) -> AsyncIterator[None]:
    keeping = asyncio.create_task(keeper.run())
    async with following(projector):
        yield
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping


async def test_news_is_in_the_columns_at_once_though_nobody_polls(
    database: Database, reading_from: ReadingFrom
) -> None:
    ingest = FakeIngest()
    handover = Handover()
    async with reading_from(ingest) as stub, closing_columns(DuckColumns()) as columns:
        projector = Projector(
            database,
            stub,
            sightings=Sightings(),
            handover=handover,
            longest_wait=timedelta(seconds=30),
        )
        keeper = ColumnKeeper(database, columns, handover=handover, pause_seconds=60)
        async with kept(keeper, projector):
            async with asyncio.timeout(10):
                await ingest.asked_for_news.wait()
            for count in (1, 2, 3):
                ingest.add(happened(STORE))
                await until(partial(holds, columns, count))

        described = await columns.describe(Scope(STORE, NOON, NOON + timedelta(hours=1)), limit=10)
    assert [one.event_count for one in described] == [3]


async def test_columns_are_the_same_by_either_way(
    database: Database, reading_from: ReadingFrom
) -> None:
    ingest = FakeIngest()
    ingest.page_size = 7
    handover = Handover()
    async with (
        reading_from(ingest) as stub,
        closing_columns(DuckColumns()) as handed,
        closing_columns(DuckColumns()) as copied,
    ):
        ingest.add(*(happened(STORE, f"Event {number % 3}") for number in range(40)))
        projector = Projector(database, stub, sightings=Sightings(), handover=handover)
        async with kept(ColumnKeeper(database, handed, handover=handover), projector):
            await until(partial(holds, handed, 40))
        while await ColumnKeeper(database, copied).copy_page():
            pass

        rows = [
            await columns._ask("SELECT * FROM events_3 ORDER BY id", {})
            for columns in (handed, copied)
        ]
        assert rows[0] == rows[1]
        assert len(rows[0]) == 40
        assert await handed.cursors() == await copied.cursors()
