from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import grpc
import pytest
from sqlalchemy import select

from common.client import open_channel
from common.db import Database
from common.server import build_server, listen
from common.tls import Certificates
from common.uid import new_uid
from services.query import repository
from services.query.freshness import Sightings
from services.query.projector import LOG_SERVICE, Projector
from services.query.quarters import quarter_of
from services.query.tables import recorded_events, tallies
from services.query.tallies import EVENT_TYPES
from shoptrail.ingest.v1 import ingest_pb2_grpc
from shoptrail.ingest.v1.event_pb2 import Event
from tests.services.query.fake_ingest import NOON, PAGE, TRACK, FakeIngest, happened
from tests.services.query.scene import ReadingFrom

STORES = [new_uid("sto") for _ in range(4)]


def visits(count: int, *, seed: int, stores: list[str]) -> list[Event]:
    """Events of some stores, in no order of time."""
    chance = random.Random(seed)  # noqa: S311 - nothing secret
    return [
        happened(
            chance.choice(stores),
            chance.choice(["Product Viewed", "Product Viewed ", "product viewed", "Zwölf 🛒"]),
            at=NOON - timedelta(minutes=chance.randrange(0, 600)),
            of=chance.choice([TRACK, TRACK, PAGE]),
            payload=b'{"n": %d}' % number,
        )
        for number in range(count)
    ]


@asynccontextmanager
async def following(projector: Projector) -> AsyncIterator[asyncio.Task[None]]:
    """The projector at work during the block."""
    task = asyncio.create_task(projector.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def position_of(database: Database) -> int:
    async with database.read() as snapshot:
        live = await repository.find_live_generation(snapshot)
        return sum(cursor.position for cursor in await repository.list_cursors(snapshot, live))


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return once it holds."""
    async with asyncio.timeout(30):
        while not await holds():  # noqa: ASYNC110 - rows in a database give no event
            await asyncio.sleep(0.01)


async def reached(database: Database, position: int) -> None:
    """Return once so many events are projected."""

    async def there() -> bool:
        return await position_of(database) >= position

    await until(there)


async def assert_exact(database: Database, ingest: FakeIngest) -> None:
    """The read models are what counting the log by hand gives."""
    events = [event for log in ingest.shards for event in log]
    expected = Counter(
        (
            event.store_uid,
            event.type,
            quarter_of(NOON) + (event.occur_time.seconds - int(NOON.timestamp())) // 900,
            event.name if event.type == TRACK else "page",
        )
        for event in events
    )
    async with database.read() as snapshot:
        counted = await snapshot.execute(select(tallies).where(tallies.c.measure.in_(EVENT_TYPES)))
        counts = {(row.store_uid, row.measure, row.quarter, row.name): row.tally for row in counted}
        listed = await snapshot.execute(select(recorded_events.c.uid, recorded_events.c.payload))
        payloads = {row.uid: row.payload for row in listed}
    assert counts == expected
    assert payloads == {event.uid: event.payload for event in events}


@pytest.mark.parametrize("seed", range(3))
async def test_events_are_counted_once_however_often_the_projector_is_stopped(
    database: Database, reading_from: ReadingFrom, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - nothing secret
    ingest = FakeIngest(shard_count=2)
    ingest.page_size = 23
    ingest.add(*visits(600, seed=seed, stores=STORES[:2]), shard=0)
    ingest.add(*visits(400, seed=seed + 10, stores=STORES[2:]), shard=1)

    stop_count = 0
    async with reading_from(ingest) as stub:
        longest = 0.06
        while (before := await position_of(database)) < ingest.event_count:
            async with following(Projector(database, stub, sightings=Sightings())):
                await asyncio.sleep(chance.uniform(0, longest))  # Until it is in the midst of it.
            if await position_of(database) == before:
                longest *= 1.2  # A machine that is busy gets nowhere in so short a life.
            stop_count += 1

    assert stop_count > 1
    await assert_exact(database, ingest)


async def test_two_projectors_on_one_database_count_each_event_once(
    database: Database, reading_from: ReadingFrom
) -> None:
    ingest = FakeIngest()
    ingest.page_size = 19

    async with reading_from(ingest) as stub:
        async with following(Projector(database, stub, sightings=Sightings())):
            async with following(Projector(database, stub, sightings=Sightings())):
                for seed in range(10):
                    ingest.add(*visits(40, seed=seed, stores=STORES))
                    await reached(database, ingest.event_count - 20)
                await reached(database, ingest.event_count)

    await assert_exact(database, ingest)


async def test_a_shard_that_is_added_is_followed_from_its_beginning(
    database: Database, reading_from: ReadingFrom
) -> None:
    ingest = FakeIngest()
    ingest.add(*visits(5, seed=1, stores=STORES[:1]))

    async with reading_from(ingest) as stub:
        async with following(Projector(database, stub, sightings=Sightings())):
            await reached(database, 5)
            ingest.shards.append([])
            ingest.add(*visits(7, seed=2, stores=STORES[1:]), shard=1)
            await reached(database, 12)

    await assert_exact(database, ingest)


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
    ],
)
async def test_the_projector_goes_on_after_a_failed_call(
    database: Database, reading_from: ReadingFrom, code: grpc.StatusCode
) -> None:
    ingest = FakeIngest()
    ingest.add(*visits(5, seed=1, stores=STORES))
    ingest.failures = [code]

    async with reading_from(ingest) as stub:
        async with following(Projector(database, stub, sightings=Sightings())):
            await reached(database, 5)

    await assert_exact(database, ingest)


async def test_the_projector_goes_on_when_ingest_comes_back(
    database: Database, certificates: Mapping[str, Certificates]
) -> None:
    ingest = FakeIngest()
    ingest.add(*visits(5, seed=1, stores=STORES))

    def start(port: int) -> tuple[grpc.aio.Server, int]:
        server = build_server([LOG_SERVICE])
        ingest_pb2_grpc.add_IngestServicer_to_server(ingest, server)
        return server, listen(server, f"127.0.0.1:{port}", certificates["ingest"])

    server, port = start(0)
    await server.start()
    channel = open_channel(f"127.0.0.1:{port}", LOG_SERVICE, "ingest", certificates["query"])
    projector = Projector(database, ingest_pb2_grpc.IngestStub(channel), sightings=Sightings())
    async with following(projector):
        await reached(database, 5)
        await asyncio.wait_for(ingest.asked_for_news.wait(), timeout=5)
        await server.stop(None)
        ingest.add(*visits(5, seed=2, stores=STORES))
        server, _ = start(port)
        await server.start()
        await reached(database, 10)
    await channel.close()
    await server.stop(None)

    await assert_exact(database, ingest)


@pytest.mark.parametrize("fault", ["gap", "loss"])
async def test_a_log_in_disorder_stops_its_shard_only_and_counts_nothing_wrong(
    database: Database,
    reading_from: ReadingFrom,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    ingest = FakeIngest(shard_count=2)
    ingest.add(*visits(6, seed=1, stores=STORES[:1]), shard=0)
    async with reading_from(ingest) as stub:
        async with following(Projector(database, stub, sightings=Sightings())) as task:
            await reached(database, 6)
            if fault == "gap":
                [late] = visits(1, seed=2, stores=STORES[:1])
                ingest.add(late)
                late.position = 8
            else:
                ingest.shards[0].clear()
                ingest.add()
            ingest.add(*visits(4, seed=3, stores=STORES[1:]), shard=1)
            await reached(database, 10)

            async def stopped() -> bool:
                return "projection stopped" in caplog.messages

            await until(stopped)
            assert not task.done()

    [line] = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert line.__dict__["shard"] == 0
    assert await position_of(database) == 10


async def test_answers_are_as_fresh_as_the_last_news_that_there_is_none(
    database: Database, reading_from: ReadingFrom
) -> None:
    ingest = FakeIngest(shard_count=2)
    ingest.add(*visits(6, seed=1, stores=STORES), shard=1)
    sightings = Sightings()

    async with reading_from(ingest) as stub:
        projector = Projector(
            database, stub, sightings=sightings, longest_wait=timedelta(milliseconds=50)
        )
        async with following(projector):

            async def fresh() -> bool:
                return await as_of(database, sightings) == ingest.time

            await reached(database, 6)
            await until(fresh)
            ingest.time += timedelta(minutes=1)
            await until(fresh)
    assert await as_of(database, Sightings()) is None  # Nobody else has seen shard 0 at rest.


async def as_of(database: Database, sightings: Sightings) -> object:
    async with database.read() as snapshot:
        live = await repository.find_live_generation(snapshot)
        return sightings.freshness_of(await repository.list_cursors(snapshot, live)).time


async def test_before_the_head_answers_are_as_fresh_as_the_last_event(
    database: Database, reading_from: ReadingFrom
) -> None:
    ingest = FakeIngest()
    ingest.page_size = 1
    first, second = happened(STORES[0], at=NOON), happened(STORES[0], at=NOON)
    ingest.add(first, second)
    second.position = 3  # The projector stops between the two.

    async with reading_from(ingest) as stub:
        async with following(Projector(database, stub, sightings=Sightings())):
            await reached(database, 1)

    assert await as_of(database, Sightings()) == NOON + timedelta(seconds=1)
