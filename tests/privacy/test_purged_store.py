"""Of a store that was purged nothing stays that tells of people, and others keep everything."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from common.cron.job import Job
from common.uid import new_uid
from services.ingest.jobs import ingest_jobs
from services.ingest.subjects import SubjectDigests
from services.ingest.tables import metadata as ingest_tables
from services.maintenance.jobs import maintenance_jobs
from services.maintenance.repository import add_subject_keys, find_subject_keys
from services.query.jobs import query_jobs
from services.query.tables import FIGURES
from services.query.tables import metadata as query_tables
from shoptrail.ingest.v1 import ingest_pb2
from shoptrail.keys.v1 import keys_pb2
from tests.conftest import NOBODY, key_metadata
from tests.privacy.shop import NOW, PLANTED, Shop, event, of_ada, of_somebody, planted_in


@dataclass
class Record:
    """As much of Keys as the jobs ask: which stores were purged."""

    purged: list[str] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)

    async def ListPurgedStores(
        self, request: keys_pb2.ListPurgedStoresRequest, timeout: float
    ) -> keys_pb2.ListPurgedStoresResponse:
        self.asked.append(request.after_position)
        # Other things were done in between.
        stores = [
            keys_pb2.PurgedStore(store_uid=uid, position=10 * (place + 1))
            for place, uid in enumerate(self.purged)
        ]
        return keys_pb2.ListPurgedStoresResponse(
            stores=[one for one in stores if one.position > request.after_position]
        )


async def clear(
    shop: Shop, service: str, record: Any, *, now: datetime = NOW + timedelta(minutes=1)
) -> int:
    """All batches of the service's job; returns how many rows went."""
    jobs: Sequence[Job] = {
        "ingest": ingest_jobs(SubjectDigests(bytes(32)), record),
        "query": query_jobs(record),
        "maintenance": maintenance_jobs(record),
    }[service]
    return await run(
        shop, service, next(one for one in jobs if one.name == "clear-purged-stores"), now=now
    )


async def run(shop: Shop, service: str, job: Job, *, now: datetime) -> int:
    count, cursor = 0, ""
    while True:
        async with shop.databases[service].begin() as transaction:
            done = await job.run_batch(transaction, cursor=cursor, now=now)
        count, cursor = count + done.row_count, done.cursor
        if done.done:
            return count


async def rows_of(shop: Shop, store_uid: str) -> dict[str, int]:
    """In how many rows of which tables the store stands."""
    found: dict[str, int] = {}
    for service, metadata in (("ingest", ingest_tables), ("query", query_tables)):
        async with shop.databases[service].read() as snapshot:
            for table in metadata.sorted_tables:
                if "store_uid" in table.c:
                    statement = select(func.count()).where(table.c.store_uid == store_uid)
                    if count := await snapshot.scalar(statement.select_from(table)):
                        found[f"{service}.{table.name}"] = count
    return found


async def put_rules(shop: Shop) -> None:
    """Have the store want something of its own."""
    of_store = key_metadata("settings:write", "plans:write", store_uid=shop.store_uid)
    await shop.gateway.PutRetentionRule(
        ingest_pb2.PutRetentionRuleRequest(store_uid=shop.store_uid, days=0, event_name="Met"),
        timeout=5,
        metadata=of_store,
    )
    await shop.gateway.PutStoreSettings(
        ingest_pb2.PutStoreSettingsRequest(store_uid=shop.store_uid, rejected_days=9),
        timeout=5,
        metadata=of_store,
    )


async def test_what_a_purged_store_had_is_gone_and_another_keeps_its_own(shop: Shop) -> None:
    chance = random.Random(1)  # noqa: S311 - nothing secret
    other = shop.store_uid
    await shop.send(*(of_somebody(chance) for _ in range(120)))
    await put_rules(shop)
    shop.store_uid = new_uid("sto")
    await put_rules(shop)
    bad = event("track", userId="ada-4711", properties={"note": "planted words"})
    await shop.send(*(of_ada(chance) for _ in range(230)), bad)
    await shop.send(event("identify", userId="ada-4711", anonymousId="phone-4711"))
    await shop.all_followed()
    await shop.resolve(user_ids=["ada-4711"])  # Fills the index of people.
    kept = await rows_of(shop, other)
    record = Record()

    assert [await clear(shop, name, record) for name in ("ingest", "query")] == [0, 0]
    record.purged.append(shop.store_uid)
    assert await clear(shop, "query", record) == 0  # Ingest hasn't, so it may not either.
    assert await clear(shop, "ingest", record) > 230
    await shop.all_followed()
    assert await clear(shop, "query", record) > 0

    assert await planted_in(shop, *PLANTED) == []
    left = await rows_of(shop, shop.store_uid)
    assert set(left) == {
        *("ingest.events", "ingest.verdict_hours", "ingest.purged_stores"),
        *("query.recorded_events", "query.purged_stores"),
    }
    assert left["ingest.events"] == 231
    assert await rows_of(shop, other) == kept
    assert record.asked[-1] == 10
    assert [await clear(shop, name, record) for name in ("ingest", "query")] == [0, 0]


async def test_what_comes_late_of_a_purged_store_is_cleared_for_a_week(shop: Shop) -> None:
    chance = random.Random(3)  # noqa: S311 - nothing secret
    record = Record([shop.store_uid])
    counts = []
    for days in (0, 6.9, 7.1, 8):
        await shop.send(*(of_ada(chance) for _ in range(10)))
        counts.append(await clear(shop, "ingest", record, now=NOW + timedelta(days=days)) >= 10)

    assert counts == [True, True, True, False]


async def test_backups_of_a_purged_store_can_be_read_no_more(shop: Shop) -> None:
    other = new_uid("sto")
    of_people = {number.to_bytes(16): number.to_bytes(32) for number in range(1200)}
    async with shop.databases["maintenance"].begin() as transaction:
        for store_uid in (shop.store_uid, other):
            await add_subject_keys(transaction, store_uid, of_people)

    assert await clear(shop, "maintenance", Record([shop.store_uid])) == 1200

    async with shop.databases["maintenance"].read() as snapshot:
        assert await find_subject_keys(snapshot, shop.store_uid, of_people) == {}
        assert await find_subject_keys(snapshot, other, of_people) == of_people


async def test_figures_that_are_made_anew_have_nothing_of_a_purged_store(shop: Shop) -> None:
    chance = random.Random(2)  # noqa: S311 - nothing secret
    await shop.send(*(of_ada(chance) for _ in range(50)))
    await shop.all_followed()
    record = Record([shop.store_uid])
    await clear(shop, "ingest", record)
    await shop.all_followed()
    await clear(shop, "query", record)

    await shop.rebuilt()

    left = await rows_of(shop, shop.store_uid)
    assert not {f"query.{table.name}" for table in FIGURES} & set(left)
    for service, names in (("ingest", ["check-log"]), ("query", ["check-counts", "check-listing"])):
        for job in [*ingest_jobs(SubjectDigests(bytes(32)), NOBODY), *query_jobs(NOBODY)]:
            if job.name in names:
                await run(shop, service, job, now=NOW)
