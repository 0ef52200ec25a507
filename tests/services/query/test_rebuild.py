"""Figures are made anew from the log while those that there are go on answering."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from datetime import timedelta
from typing import Any

import grpc
import pytest
from sqlalchemy import select

from common.db import Database
from common.uid import new_uid
from services.query import repository
from services.query.freshness import Sightings
from services.query.projector import Projector
from services.query.tables import FIGURES, generations, recorded_events
from shoptrail.ingest.v1.event_pb2 import Event
from shoptrail.maintenance.v1.maintenance_pb2 import RunCronOutcome, RunCronRequest
from shoptrail.query.v1.query_pb2 import RebuildFiguresRequest
from tests.services.query.fake_ingest import (
    ALIAS,
    IDENTIFY,
    NOON,
    PAGE,
    TRACK,
    FakeIngest,
    happened,
)
from tests.services.query.scene import ReadingFrom, Scene
from tests.services.query.test_projector import following, position_of, reached, until

STORES = [new_uid("sto") for _ in range(2)]
_SUMS = {"order_count", "gross", "refund_count", "refunded", "cancellation_count", "cancelled"} | {
    "quantity",
    "revenue",
    "session_count",
    "bounce_count",
    "page_count",
    "duration",
}


def shopping(count: int, *, seed: int) -> list[Event]:
    """What shops' visitors do, in no order of time."""
    chance = random.Random(seed)  # noqa: S311 - nothing secret
    found = []
    for _ in range(count):
        kind = chance.choice([TRACK, TRACK, PAGE, IDENTIFY, ALIAS])
        name = chance.choice(
            ["Product Viewed", "Order Completed", "Order Completed", "Order Refunded"]
        )
        words: dict[str, Any] = {
            "previousId": f"u{chance.randrange(20)}",
            "context": {"page": {"path": chance.choice(["/", "/tea"])}},
            "properties": {
                "order_id": f"o{chance.randrange(30)}",
                "total": chance.randrange(10_000) / 100,
                "product_id": "tea",
                "name": chance.choice(["Tea", "Green tea"]),
                "products": [{"product_id": chance.choice(["tea", "cup"]), "price": 2.5}],
            },
        }
        event = happened(
            chance.choice(STORES),
            name if kind == TRACK else "",
            at=NOON + timedelta(minutes=chance.randrange(600)),
            of=kind,
            payload=json.dumps(words).encode(),
        )
        event.anonymous_id = f"b{chance.randrange(20)}"
        event.user_id = chance.choice(["", f"u{chance.randrange(20)}"])
        if kind in (IDENTIFY, ALIAS):
            event.user_id = event.user_id or "u1"
        found.append(event)
    return found


async def figures_of(database: Database, generation: int) -> dict[str, Counter[tuple[Any, ...]]]:
    """All rows of a generation, but for sums of nothing."""
    found = {}
    async with database.read() as snapshot:
        for table in FIGURES:
            columns = [column for column in table.c if column.name != "generation"]
            rows = await snapshot.execute(select(*columns).where(table.c.generation == generation))
            sums = [index for index, column in enumerate(columns) if column.name in _SUMS]
            found[table.name] = Counter(
                tuple(row) for row in rows if not sums or any(row[index] for index in sums)
            )
    return found


async def live_generation(database: Database) -> int:
    async with database.read() as snapshot:
        return await repository.find_live_generation(snapshot)


async def test_figures_made_anew_are_those_of_a_projector_that_was_stopped_at_random(
    scene: Scene, database: Database, reading_from: ReadingFrom
) -> None:
    chance = random.Random(7)  # noqa: S311 - nothing secret
    ingest = FakeIngest()
    ingest.page_size = 31
    ingest.add(*shopping(400, seed=1))
    wait = timedelta(milliseconds=20)

    async with reading_from(ingest) as stub:

        def projector() -> Projector:
            return Projector(database, stub, sightings=Sightings(), longest_wait=wait)

        while await position_of(database) < ingest.event_count:
            async with following(projector()):
                await asyncio.sleep(chance.uniform(0.02, 0.1))  # Until it is in the midst of it.
        first = await figures_of(database, 1)
        begun = await scene.operator.RebuildFigures(RebuildFiguresRequest(), timeout=5)
        assert begun.generation == 2

        async def replaced() -> bool:
            return await live_generation(database) == 2

        async with following(projector()), following(projector()):
            await until(replaced)
            second = await figures_of(database, 2)
            assert first == second
            late = shopping(50, seed=2)
            ingest.add(*late)
            await reached(database, ingest.event_count)

    assert all(second.values())
    async with database.read() as snapshot:
        listed = set((await snapshot.execute(select(recorded_events.c.uid))).scalars())
    assert listed == {event.uid for event in ingest.shards[0]}


async def test_figures_that_were_replaced_are_dropped_by_the_job(
    scene: Scene, database: Database, reading_from: ReadingFrom
) -> None:
    ingest = FakeIngest()
    ingest.add(*shopping(60, seed=1))
    async with reading_from(ingest) as stub:
        projector = Projector(
            database, stub, sightings=Sightings(), longest_wait=timedelta(milliseconds=20)
        )
        async with following(projector):
            await reached(database, ingest.event_count)
            await scene.operator.RebuildFigures(RebuildFiguresRequest(), timeout=5)

            async def replaced() -> bool:
                return await live_generation(database) == 2

            await until(replaced)
    kept = await figures_of(database, 2)

    done = await scene.cron.RunCron(RunCronRequest(job="drop-replaced-figures"), timeout=10)

    assert done.outcome == RunCronOutcome.RUN_CRON_OUTCOME_RAN
    assert not any((await figures_of(database, 1)).values())
    assert await figures_of(database, 2) == kept
    async with database.read() as snapshot:
        assert list((await snapshot.execute(select(generations.c.generation))).scalars()) == [2]


async def test_one_rebuild_at_a_time(scene: Scene) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as nothing_yet:
        await scene.operator.RebuildFigures(RebuildFiguresRequest(), timeout=5)
    await scene.project(happened(scene.store_uid))
    await scene.operator.RebuildFigures(RebuildFiguresRequest(), timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as under_way:
        await scene.operator.RebuildFigures(RebuildFiguresRequest(), timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as not_allowed:
        await scene.query.RebuildFigures(RebuildFiguresRequest(), timeout=5)

    assert nothing_yet.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert under_way.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert not_allowed.value.code() is grpc.StatusCode.PERMISSION_DENIED


POISON = [
    b"",
    b"null",
    b"[1]",
    b"{",
    b"\xff\xfe",
    b'{"properties":' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"properties": 7, "context": "x", "previousId": {"a": 1}}',
    b'{"properties": {"order_id": ["o"], "total": "1e999999999999999999999"}}',
    b'{"properties": {"order_id": "o1", "total": 1e400, "products": [null, 3, {"sku": {}}]}}',
    b'{"properties": {"order_id": "o2", "total": -5, "currency": 12, "products": {"a": 1}}}',
    b'{"properties": {"order_id": "o3", "total": "NaN", "products": [{"sku": "s", "price": 1e9,'
    b' "quantity": 1e5}]}}',
    b'{"properties": {"order_id": "o4", "total": 99999999999999999999999999999999999999999999}}',
    b'{"properties": {"order_id": 12345678901234567890123, "query": "\\u0000"}}',
    b'{"properties": {"order_id": "\\u0000\\ud83d\\ude00", "currency": "\xc3\x9f\xc3\x9fx"}}',
    b'{"context": {"page": {"url": "http://[::1", "path": null, "search": "?utm_source=%ff"}}}',
    b'{"context": {"campaign": {"source": "' + b"x" * 9000 + b'", "name": "\xf0\x9f\x9b\x92"}}}',
]


async def test_no_payload_stops_the_projector(scene: Scene) -> None:
    names = [
        "Order Completed",
        "Order Updated",
        "Order Refunded",
        "Order Cancelled",
        "Product Viewed",
        "Products Searched",
        "Promotion Viewed",
        "Coupon Entered",
    ]
    for payload in POISON:
        await scene.project(
            *(happened(scene.store_uid, name, payload=payload) for name in names),
            *(
                happened(scene.store_uid, "", of=kind, payload=payload)
                for kind in (PAGE, IDENTIFY, ALIAS)
            ),
        )

    assert scene.position == len(POISON) * (len(names) + 3)
