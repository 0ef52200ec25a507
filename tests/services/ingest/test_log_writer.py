"""Several processes write to one shard: each position is given once, whoever was there before."""

from __future__ import annotations

import asyncio
import random
from itertools import count

import pytest
from sqlalchemy import select

from common.db import Database
from common.uid import new_uuid
from deploy.vitess.placement import INGEST
from deploy.vitess.routing import unrouted_tables
from services.ingest.append import NewEvent
from services.ingest.log_writer import Delivery, Kept, LogWriter
from services.ingest.news import News
from services.ingest.repository import add_heads, get_log_head
from services.ingest.subjects import SubjectDigests
from services.ingest.suppressions import Suppressions
from services.ingest.tables import events
from services.ingest.verdicts import Verdict
from tests.services.ingest.conftest import NOW
from tests.statements import caught

SHARD = 0
STORE = new_uuid()


def event(number: int) -> NewEvent:
    """The event of this number, under a new uid: sent twice, it is a duplicate."""
    return NewEvent(
        uid=new_uuid(),
        store_uid=STORE,
        message_key=number.to_bytes(16),
        message_id=f"m-{number}",
        type=1,
        name="Product Viewed",
        user_id="",
        anonymous_id="ada",
        occur_time=NOW,
        receive_time=NOW,
        hour=int(NOW.timestamp()) // 3600,
        payload=b"{}",
        enrichment=b"{}",
    )


@pytest.fixture
async def writers(database: Database) -> list[LogWriter]:
    """As many processes have them: none knows of the others."""
    async with database.begin() as transaction:
        await add_heads(transaction, shard_count=1)
    return [
        LogWriter(
            database,
            SHARD,
            News(),
            Suppressions(SHARD, SubjectDigests(bytes(32))),
            patience_seconds=10,
        )
        for _ in range(3)
    ]


async def test_writers_that_take_turns_or_meet_leave_no_gap_and_store_nothing_twice(
    writers: list[LogWriter], database: Database
) -> None:
    chance = random.Random(7)  # noqa: S311 - no secret
    numbers = count()
    sent: list[int] = []
    accepted = 0
    for _ in range(40):
        together = []
        # A writer that goes twice in a row knows the head, and one that doesn't has it wrong.
        for writer in chance.choices(writers, k=chance.choice((1, 1, 2, 3))):
            fresh = [next(numbers) for _ in range(chance.randrange(4))]
            known = chance.sample(sent, min(len(sent), chance.randrange(3)))
            sent += fresh
            together.append(writer.append(Delivery([event(each) for each in fresh + known])))
        for outcome in await asyncio.gather(*together):
            accepted += outcome.events.count(Verdict.ACCEPTED)

    async with database.read() as snapshot:
        stored = (await snapshot.execute(select(events.c.id, events.c.message_id))).all()
        head = await get_log_head(snapshot, SHARD)
    assert accepted == len(sent)
    assert sorted(row.message_id for row in stored) == sorted(f"m-{each}" for each in sent)
    assert sorted(row.id for row in stored) == list(range(1, len(sent) + 1))
    assert head.position == len(sent)


async def test_what_a_journal_kept_is_stored_once_and_each_statement_names_its_shard(
    writers: list[LogWriter], database: Database
) -> None:
    journal = new_uuid()
    with caught() as statements:
        for writer in writers:
            await writer.drain(journal, [Kept(1, Delivery([event(1)]), None)])
        await writers[0].forget_journal(journal)

    async with database.read() as snapshot:
        head = await get_log_head(snapshot, SHARD)
    assert head.position == 1
    assert any("journal_cursors" in each for each in statements)
    assert [each for each in statements if unrouted_tables(each, INGEST)] == []
