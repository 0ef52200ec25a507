"""Ingest's SQL. Functions take the caller's transaction and never end it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, delete, insert, select
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from common.uid import format_uid
from services.ingest.append import POSITION_BITS, LogHead
from services.ingest.reach import Witness
from services.ingest.tables import (
    events,
    journal_cursors,
    log_heads,
    quota_receipts,
    rejected_events,
)


@dataclass(frozen=True, slots=True)
class RejectedEvent:
    """An event that could not be stored, and why. What could not be read of it is empty."""

    uid: str
    store_uid: str
    message_key: bytes
    message_id: str
    type: int
    name: str
    user_id: str
    anonymous_id: str
    code: str
    path: str
    message: str
    receive_time: datetime
    arrival: bytes
    payload: bytes


_REJECTED_FIELDS = tuple(RejectedEvent.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class QuotaReceipt:
    """That an event was beyond its store's quota."""

    store_uid: bytes
    message_key: bytes
    receive_time: datetime


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event as it stands in the log."""

    position: int
    uid: str
    store_uid: str
    message_id: str
    type: int
    name: str
    user_id: str
    anonymous_id: str
    occur_time: datetime
    receive_time: datetime
    payload: bytes
    enrichment: bytes | None
    """Null for an event from before there was any."""


_LOGGED_COLUMNS = tuple(
    events.c["id" if name == "position" else name] for name in LoggedEvent.__dataclass_fields__
)


async def add_heads(transaction: AsyncConnection, *, shard_count: int) -> None:
    """Make sure that each shard has a head."""
    known = set((await transaction.execute(select(log_heads.c.shard))).scalars())
    for shard in range(shard_count):
        if shard not in known:
            try:
                async with transaction.begin_nested():
                    await transaction.execute(insert(log_heads).values(shard=shard, position=0))
            except IntegrityError:
                continue  # Another replica made it meanwhile.


async def add_rejected_events(
    transaction: AsyncConnection, rejected: Sequence[RejectedEvent]
) -> None:
    """Keep rejected events; of those that a store has sent before, the first stays."""
    statement = (
        sqlite.insert(rejected_events).on_conflict_do_nothing()
        if transaction.dialect.name == "sqlite"
        # Not IGNORE, which would cut off texts that are too long without a word.
        else mysql.insert(rejected_events).on_duplicate_key_update(id=rejected_events.c.id)
    )
    # Not `asdict`, which copies what it can't know to be immutable: most of the time it took.
    rows = [{name: getattr(event, name) for name in _REJECTED_FIELDS} for event in rejected]
    await transaction.execute(statement, rows)


async def add_quota_receipts(
    transaction: AsyncConnection, receipts: Sequence[QuotaReceipt]
) -> None:
    """Keep receipts; of those for the same event, the first stays."""
    statement = (
        sqlite.insert(quota_receipts).on_conflict_do_nothing()
        if transaction.dialect.name == "sqlite"
        else mysql.insert(quota_receipts).on_duplicate_key_update(id=quota_receipts.c.id)
    )
    rows = [
        asdict(receipt) | {"store_uid": format_uid("sto", receipt.store_uid)}
        for receipt in receipts
    ]
    await transaction.execute(statement, rows)


async def list_heads(transaction: AsyncConnection) -> list[tuple[int, int]]:
    """All shards with their last positions."""
    column = log_heads.c
    rows = await transaction.execute(select(column.shard, column.position).order_by(column.shard))
    return [(shard, position) for shard, position in rows]


async def get_log_head(transaction: AsyncConnection, shard: int) -> LogHead:
    """What the shard's head says."""
    column = log_heads.c
    row = (
        await transaction.execute(
            select(column.position, column.suppression_revision, column.change_number).where(
                column.shard == shard
            )
        )
    ).one_or_none()
    return LogHead(*row) if row else LogHead(0, 0, 0)


async def list_events(
    transaction: AsyncConnection, shard: int, *, after: int, limit: int
) -> list[LoggedEvent]:
    """The shard's events after a position, in order."""
    base = shard << POSITION_BITS
    statement = (
        select(*_LOGGED_COLUMNS)
        .where(events.c.id > base + after, events.c.id < base + (1 << POSITION_BITS))
        .order_by(events.c.id)
        .limit(limit)
    )
    rows = await transaction.execute(statement)
    return [LoggedEvent(row[0] - base, *row[1:]) for row in rows]


async def get_events(
    transaction: AsyncConnection, shard: int, positions: Collection[int]
) -> list[LoggedEvent]:
    """The shard's events at these positions."""
    base = shard << POSITION_BITS
    statement = select(*_LOGGED_COLUMNS).where(
        events.c.id.in_([base + position for position in sorted(set(positions))])
    )
    rows = await transaction.execute(statement)
    return [LoggedEvent(row[0] - base, *row[1:]) for row in rows]


async def lock_journal_cursor(transaction: AsyncConnection, shard: int, journal_uid: bytes) -> int:
    """Up to which of a journal's records the shard has them; locked, unless it is 0."""
    statement = (
        select(journal_cursors.c.position).where(_of_journal(shard, journal_uid)).with_for_update()
    )
    return int(await transaction.scalar(statement) or 0)


async def put_journal_cursor(
    transaction: AsyncConnection, shard: int, journal_uid: bytes, *, position: int
) -> None:
    """Note that the shard has a journal's records up to this one."""
    values = {"journal_uid": journal_uid, "position": position, "shard": shard}
    if transaction.dialect.name == "sqlite":
        on_sqlite = sqlite.insert(journal_cursors).values(**values)
        await transaction.execute(
            on_sqlite.on_conflict_do_update(set_={"position": on_sqlite.excluded.position})
        )
    else:
        on_mysql = mysql.insert(journal_cursors).values(**values)
        await transaction.execute(
            on_mysql.on_duplicate_key_update(position=on_mysql.inserted.position)
        )


async def remove_journal_cursor(
    transaction: AsyncConnection, shard: int, journal_uid: bytes
) -> None:
    """Forget a journal that is gone."""
    await transaction.execute(delete(journal_cursors).where(_of_journal(shard, journal_uid)))


def _of_journal(shard: int, journal_uid: bytes) -> ColumnElement[bool]:
    # Which shard, too: by that alone Vitess knows where the row is.
    return (journal_cursors.c.shard == shard) & (journal_cursors.c.journal_uid == journal_uid)


async def is_stored(transaction: AsyncConnection, witness: Witness) -> bool:
    """Whether the transaction that the witness tells of was committed."""
    if witness.event_uid:
        uid = format_uid("evt", witness.event_uid)
        statement = select(events.c.id).where(events.c.uid == uid)
    else:
        statement = select(rejected_events.c.id).where(
            rejected_events.c.uid == witness.rejected_uid
        )
    return await transaction.scalar(statement) is not None
