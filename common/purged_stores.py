"""Stores that were purged: whoever keeps something of theirs removes it too, by a job.

That a store is gone is never concluded from its absence, which a restored database could
bring about, but from Keys' record that it was purged.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import (
    BigInteger,
    Column,
    MetaData,
    SmallInteger,
    Table,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from common.cron.job import Batch, Job
from common.db import TABLE_OPTIONS, Timestamp, Uid
from shoptrail.keys.v1 import keys_pb2

if TYPE_CHECKING:
    from shoptrail.keys.v1.keys_pb2_grpc import KeysAsyncStub

# For so long it is looked for again and again: something may still have been on its way.
_LOOKED_AT = timedelta(days=7)
_ANSWER_SECONDS = 3.0
_MOST_PAGES = 100
_PARTED = "|"

_metadata = MetaData()

purged_stores = Table(
    "purged_stores",
    _metadata,
    Column("store_uid", Uid("sto"), primary_key=True),
    # Where the purge stands on Keys' record.
    Column("position", BigInteger, nullable=False),
    # When it was heard of here.
    Column("note_time", Timestamp(), nullable=False),
    # 1 once it need not be looked at any more.
    Column("cleared", SmallInteger, nullable=False),
    **TABLE_OPTIONS,
)


class Clear(Protocol):
    """Removes a batch of what a store has left, in the caller's transaction.

    `cursor` is what the batch before returned, at first empty. Returns None if it can't be
    done yet, and is to be tried again the next time.
    """

    async def __call__(
        self, transaction: AsyncConnection, store_uid: str, *, cursor: str, now: datetime
    ) -> Batch | None: ...


def add_purged_stores_table(metadata: MetaData) -> None:
    """Count the table of purged stores among a service's own."""
    purged_stores.to_metadata(metadata)


def clear_purged_stores_job(keys: KeysAsyncStub, clear: Clear) -> Job:
    """Asks Keys which stores were purged, and clears one after the other."""

    async def run_batch(transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
        store_uid, _, place = cursor.partition(_PARTED)
        if not cursor:
            await _note_purged(transaction, keys, now=now)
        if not place:
            found = await _find_next(transaction, after=store_uid)
            if found is None:
                return Batch(row_count=0, done=True)
            store_uid = found
        done = await clear(transaction, store_uid, cursor=place, now=now)
        if done is None:
            return Batch(row_count=0, done=False, cursor=store_uid)
        if done.done:
            await transaction.execute(
                update(purged_stores)
                .where(
                    purged_stores.c.store_uid == store_uid,
                    purged_stores.c.note_time <= now - _LOOKED_AT,
                )
                .values(cleared=1)
            )
            return Batch(done.row_count, done=False, cursor=store_uid)
        return Batch(done.row_count, done=False, cursor=f"{store_uid}{_PARTED}{done.cursor}")

    return Job(
        name="clear-purged-stores",
        description="Removes what is kept of stores that were purged.",
        period=timedelta(hours=1),
        run_batch=run_batch,
    )


async def is_purged(transaction: AsyncConnection, store_uid: str) -> bool:
    """Whether the store is known to have been purged."""
    column = purged_stores.c
    return bool(
        await transaction.scalar(select(column.cleared + 1).where(column.store_uid == store_uid))
    )


async def _note_purged(transaction: AsyncConnection, keys: KeysAsyncStub, *, now: datetime) -> None:
    after = int(await transaction.scalar(select(func.max(purged_stores.c.position))) or 0)
    noted = {"note_time": now, "cleared": 0}
    for _ in range(_MOST_PAGES):
        answer = await keys.ListPurgedStores(
            keys_pb2.ListPurgedStoresRequest(after_position=after), timeout=_ANSWER_SECONDS
        )
        if not answer.stores:
            return
        await transaction.execute(
            insert(purged_stores),
            [
                {"store_uid": one.store_uid, "position": one.position, **noted}
                for one in answer.stores
            ],
        )
        after = answer.stores[-1].position


async def _find_next(transaction: AsyncConnection, *, after: str) -> str | None:
    column = purged_stores.c
    statement = select(column.store_uid).where(column.cleared == 0)
    if after:
        statement = statement.where(column.store_uid > after)
    found: str | None = await transaction.scalar(statement.order_by(column.store_uid).limit(1))
    return found
