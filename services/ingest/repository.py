"""Ingest's SQL. Functions take the caller's transaction and never end it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.ingest.tables import events, log_heads
from services.ingest.verdicts import EventType

_POSITION_BITS = 48
# A statement with more parameters than this is refused by some databases.
_KEYS_A_QUERY = 1000


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that is to be stored."""

    uid: str
    store_uid: str
    message_key: bytes
    message_id: str
    type: EventType
    name: str
    user_id: str
    anonymous_id: str
    occur_time: datetime
    receive_time: datetime
    payload: bytes

    @property
    def key(self) -> tuple[str, bytes]:
        """What must be unique: one store's message is one event."""
        return self.store_uid, self.message_key


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


_COLUMNS = tuple(events.c[name] for name in NewEvent.__dataclass_fields__)
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


async def lock_head(transaction: AsyncConnection, shard: int) -> int:
    """The shard's last position, locked: until the transaction ends, no one else appends."""
    head = await transaction.scalar(
        select(log_heads.c.position).where(log_heads.c.shard == shard).with_for_update()
    )
    if head is None:
        raise LookupError(f"shard {shard} has no head")
    return int(head)


async def find_known(
    transaction: AsyncConnection, keys: Sequence[tuple[str, bytes]]
) -> set[tuple[str, bytes]]:
    """Which of these stores' messages are stored. Exact under the lock of their shard's head."""
    known: set[tuple[str, bytes]] = set()
    pair = tuple_(events.c.store_uid, events.c.message_key)
    for start in range(0, len(keys), _KEYS_A_QUERY):
        asked = select(events.c.store_uid, events.c.message_key).where(
            pair.in_(keys[start : start + _KEYS_A_QUERY])
        )
        known |= {(row.store_uid, row.message_key) for row in await transaction.execute(asked)}
    return known


async def add_events(
    transaction: AsyncConnection, shard: int, *, head: int, new: Sequence[NewEvent]
) -> None:
    """Append events that the log doesn't have, and move the head, which the caller has locked."""
    if not new:
        return
    base = shard << _POSITION_BITS
    rows = [
        {"id": base | position, **{column.name: getattr(event, column.name) for column in _COLUMNS}}
        for position, event in enumerate(new, start=head + 1)
    ]
    await transaction.execute(insert(events), rows)
    await transaction.execute(
        update(log_heads).where(log_heads.c.shard == shard).values(position=head + len(new))
    )


async def get_head(transaction: AsyncConnection, shard: int) -> int:
    """The shard's last position."""
    head = await transaction.scalar(select(log_heads.c.position).where(log_heads.c.shard == shard))
    return int(head or 0)


async def list_events(
    transaction: AsyncConnection, shard: int, *, after: int, limit: int
) -> list[LoggedEvent]:
    """The shard's events after a position, in order."""
    base = shard << _POSITION_BITS
    statement = (
        select(*_LOGGED_COLUMNS)
        .where(events.c.id > base + after, events.c.id < base + (1 << _POSITION_BITS))
        .order_by(events.c.id)
        .limit(limit)
    )
    rows = await transaction.execute(statement)
    return [LoggedEvent(row[0] - base, *row[1:]) for row in rows]
