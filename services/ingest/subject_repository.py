"""Ingest's SQL about people: who is suppressed, which events are theirs, what is overwritten.

Functions take the caller's transaction and never end it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import delete, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from common.db import note_untidy
from common.uid import parse_new_uid, parse_uid
from services.ingest.append import POSITION_BITS, NewEvent, put_events
from services.ingest.tables import (
    event_people,
    events,
    log_changes,
    log_heads,
    people_cursors,
    rejected_events,
    suppressions,
)

_KEYS_A_QUERY = 400
_DIGESTS_A_QUERY = 40
_EVENT_COLUMNS = tuple(events.c)


@dataclass(frozen=True, slots=True)
class Suppression:
    """That a store wants no events of a person, or wants them again."""

    store: bytes
    digest: bytes
    active: bool
    revision: int


class Mentioning(msgspec.Struct, frozen=True, gc=False):
    """An event, as far as it says whom it is about."""

    id: int
    store: bytes
    type: int
    user_id: str
    anonymous_id: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A row of the log."""

    id: int
    uid: str
    store_uid: str
    message_key: bytes
    message_id: str
    type: int
    name: str
    user_id: str
    anonymous_id: str
    occur_time: datetime
    receive_time: datetime
    payload: bytes
    enrichment: bytes | None

    @property
    def shard(self) -> int:
        return self.id >> POSITION_BITS


@dataclass(frozen=True, slots=True)
class RejectedText:
    """A rejected event, as far as it tells whom it is about."""

    id: int
    type: int
    user_id: str
    anonymous_id: str
    arrival: bytes
    payload: bytes
    original_payload: bytes | None


_REJECTED_COLUMNS = tuple(rejected_events.c[name] for name in RejectedText.__dataclass_fields__)


async def list_suppressions(
    transaction: AsyncConnection, *, shard: int, after_revision: int | None
) -> list[Suppression]:
    """Those of a shard that changed after a revision; all there are if that is None."""
    column = suppressions.c
    statement = select(column.store_uid, column.digest, column.active, column.revision)
    if after_revision is not None:
        statement = statement.where(column.shard == shard, column.revision > after_revision)
    else:
        statement = statement.where(column.active == 1)
    rows = await transaction.execute(statement)
    return [Suppression(_store(row[0]), bytes(row[1]), bool(row[2]), row[3]) for row in rows]


async def put_suppressions(
    transaction: AsyncConnection,
    *,
    store_uid: str,
    shard: int,
    digests: Collection[bytes],
    active: bool,
    revision: int,
    now: datetime,
) -> int:
    """Set or lift suppressions under the lock of the shard's head; returns how many changed."""
    column = suppressions.c
    known: dict[bytes, bool] = {}
    for some in _in_batches(sorted(digests)):
        rows = await transaction.execute(
            select(column.digest, column.active).where(
                column.store_uid == store_uid, column.digest.in_(some)
            )
        )
        known |= {bytes(digest): bool(was) for digest, was in rows}
    changed = [digest for digest in sorted(digests) if known.get(digest, False) != active]
    if not changed:
        return 0
    values = {
        "active": int(active),
        "erase_time": None,
        "shard": shard,
        "revision": revision + 1,
        "change_time": now,
    }
    for some in _in_batches([digest for digest in changed if digest in known]):
        await transaction.execute(
            update(suppressions)
            .where(column.store_uid == store_uid, column.digest.in_(some))
            .values(values)
        )
    new = [digest for digest in changed if digest not in known]
    if new:
        await transaction.execute(
            insert(suppressions),
            [{"store_uid": store_uid, "digest": digest, **values} for digest in new],
        )
    await transaction.execute(
        update(log_heads)
        .where(log_heads.c.shard == shard)
        .values(suppression_revision=revision + 1)
    )
    return len(changed)


async def mark_erased(
    transaction: AsyncConnection, store_uid: str, digests: Collection[bytes], *, now: datetime
) -> None:
    """Note that who is suppressed by these was erased too."""
    column = suppressions.c
    for some in _in_batches(sorted(digests)):
        await transaction.execute(
            update(suppressions)
            .where(column.store_uid == store_uid, column.digest.in_(some), column.active == 1)
            .values(erase_time=now)
        )


async def list_erased(
    transaction: AsyncConnection, *, after: tuple[str, bytes] | None, limit: int
) -> list[tuple[str, bytes]]:
    """Stores and digests of who was erased, in order."""
    column = suppressions.c
    statement = (
        select(column.store_uid, column.digest)
        .where(column.erase_time.is_not(None), column.active == 1)
        .order_by(column.store_uid, column.digest)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(tuple_(column.store_uid, column.digest) > tuple_(*after))
    return [(row[0], bytes(row[1])) for row in await transaction.execute(statement)]


async def purge_lifted(transaction: AsyncConnection, *, before: datetime, limit: int) -> int:
    """Remove suppressions that were lifted before a time; returns how many."""
    column = suppressions.c
    rows = await transaction.execute(
        select(column.store_uid, column.digest)
        .where(column.active == 0, column.change_time < before)
        .limit(limit)
    )
    found = list(rows)
    for store_uid, digest in found:
        await transaction.execute(
            delete(suppressions).where(
                column.store_uid == store_uid, column.digest == digest, column.active == 0
            )
        )
    return len(found)


async def get_people_position(transaction: AsyncConnection, shard: int) -> int:
    """How far the shard's events can be found by their people."""
    statement = select(people_cursors.c.position).where(people_cursors.c.shard == shard)
    return int(await transaction.scalar(statement) or 0)


async def move_people_position(
    transaction: AsyncConnection, shard: int, *, old: int, new: int
) -> bool:
    """Say that events up to a position can be found; False if another was quicker."""
    column = people_cursors.c
    if old == 0:
        try:
            async with transaction.begin_nested():
                await transaction.execute(insert(people_cursors).values(shard=shard, position=0))
        except IntegrityError:
            pass  # It is there.
    moved = await transaction.execute(
        update(people_cursors)
        .where(column.shard == shard, column.position == old)
        .values(position=new)
    )
    return moved.rowcount == 1


async def list_mentions(
    transaction: AsyncConnection, shard: int, *, after: int, limit: int
) -> list[Mentioning]:
    """What a shard's events after a position say of people, in order.

    As text and without SQLAlchemy's types, which would take most of the time: this comes for
    each event of the log.
    """
    base = shard << POSITION_BITS
    found = await transaction.exec_driver_sql(
        "SELECT id, store_uid, type, user_id, anonymous_id, payload FROM events "  # noqa: S608 - numbers
        f"WHERE id > {base + after:d} AND id < {base + (1 << POSITION_BITS):d} "
        f"ORDER BY id LIMIT {limit:d}"
    )
    return [Mentioning(*tuple(row)) for row in found]


async def add_people(
    transaction: AsyncConnection, rows: Iterable[tuple[bytes, bytes, int]]
) -> None:
    """Let events be found: store, digest and id of each. Those that are there stay."""
    values = ",".join(
        f"(x'{store.hex()}',x'{digest.hex()}',{event_id:d})"
        for store, digest, event_id in sorted(rows)
    )
    if not values:
        return
    on_known = (
        "ON CONFLICT DO NOTHING"
        if transaction.dialect.name == "sqlite"
        else "ON DUPLICATE KEY UPDATE event_id = VALUES(event_id)"
    )
    await transaction.exec_driver_sql(
        f"INSERT INTO event_people (store_uid, digest, event_id) VALUES {values} {on_known}"  # noqa: S608 - hex digits and numbers
    )


async def find_event_ids(
    transaction: AsyncConnection,
    store_uid: str,
    digests: Collection[bytes],
    *,
    after: int = -1,
    limit: int | None = None,
) -> list[int]:
    """Ids of a store's events that have one of these digests, in order."""
    column = event_people.c
    found: set[int] = set()
    for some in _in_batches(sorted(digests)):
        statement = (
            select(column.event_id)
            .where(column.store_uid == store_uid, column.digest.in_(some), column.event_id > after)
            .distinct()
            .order_by(column.event_id)
        )
        rows = await transaction.execute(statement.limit(limit) if limit else statement)
        found.update(rows.scalars())
    return sorted(found)[:limit]


async def get_events(
    transaction: AsyncConnection, ids: Sequence[int], *, types: Collection[int] = ()
) -> list[StoredEvent]:
    """The events with these ids, in order; only of some types, if any are named."""
    found = []
    for some in _in_batches(ids):
        statement = select(*_EVENT_COLUMNS).where(events.c.id.in_(some)).order_by(events.c.id)
        if types:
            statement = statement.where(events.c.type.in_(types))
        rows = await transaction.execute(statement)
        found += [StoredEvent(*row) for row in rows]
    return found


async def overwrite_events(
    transaction: AsyncConnection,
    shard: int,
    changed: Sequence[StoredEvent],
    *,
    change_number: int,
    now: datetime,
) -> int:
    """Put events in the places of those with their ids, under the lock of the shard's head.

    Returns the number of the last change.
    """
    if not changed:
        return change_number
    await note_untidy(transaction)
    ids = [event.id for event in changed]
    # Two statements, where as many updates would be a round trip each.
    for some in _in_batches(ids):
        await transaction.execute(delete(events).where(events.c.id.in_(some)))
    await put_events(transaction, [(event.id, _as_new(event)) for event in changed])
    await transaction.execute(
        insert(log_changes),
        [
            {"shard": shard, "number": number, "event_id": event_id, "change_time": now}
            for number, event_id in enumerate(ids, change_number + 1)
        ],
    )
    last = change_number + len(ids)
    await transaction.execute(
        update(log_heads).where(log_heads.c.shard == shard).values(change_number=last)
    )
    return last


async def find_ids_by_digest(
    transaction: AsyncConnection, store_uid: str, digests: Collection[bytes], *, most: int
) -> dict[bytes, list[int]]:
    """For each digest the ids of a store's events that have it, in order; at most so many."""
    column = event_people.c
    found: dict[bytes, list[int]] = {}
    asked = sorted(digests)
    while asked:
        some = asked[:_DIGESTS_A_QUERY]
        limit = most * len(some)
        rows = await transaction.execute(
            select(column.digest, column.event_id)
            .where(column.store_uid == store_uid, column.digest.in_(some))
            .order_by(column.digest, column.event_id)
            .limit(limit)
        )
        pairs = [(bytes(digest), event_id) for digest, event_id in rows]
        ids: defaultdict[bytes, list[int]] = defaultdict(list)
        for digest, event_id in pairs:
            ids[digest].append(event_id)
        # What was cut off at the limit has that many itself, or is asked for once more.
        whole = len(pairs) < limit
        last = pairs[-1][0] if pairs else b""
        answered = [
            one for one in some if whole or one < last or (one == last and len(ids[one]) >= most)
        ]
        found |= {one: ids[one][:most] for one in answered if one in ids}
        asked = [one for one in asked if one not in answered]
    return found


async def forget_people(
    transaction: AsyncConnection, store_uid: str, found_by: Mapping[bytes, Collection[int]]
) -> int:
    """Let events no more be found by digests, which have their ids; returns how many rows went."""
    store = parse_uid("sto", store_uid)
    if transaction.dialect.name == "sqlite":
        keys = [
            (store, digest, event_id)
            for digest, ids in sorted(found_by.items())
            for event_id in sorted(ids)
        ]
        if not keys:
            return 0
        gone = await transaction.exec_driver_sql(
            "DELETE FROM event_people WHERE store_uid = ? AND digest = ? AND event_id = ?", keys
        )
        return gone.rowcount
    count = 0
    for some in _in_batches(sorted(found_by)):
        # Each digest's events by themselves, which are few. Pairs MariaDB doesn't look up by an
        # index, and every digest with every event takes it longer than all else that is done.
        pairs = " OR ".join(
            f"(digest = x'{digest.hex()}' AND event_id IN ({','.join(map(str, found_by[digest]))}))"
            for digest in some
        )
        gone = await transaction.exec_driver_sql(
            f"DELETE FROM event_people WHERE store_uid = x'{store.hex()}' AND ({pairs})"  # noqa: S608 - hex digits and numbers
        )
        count += gone.rowcount
    return count


async def list_changes(
    transaction: AsyncConnection, shard: int, *, after: int, limit: int
) -> list[tuple[int, int]]:
    """Numbers and positions of a shard's changes after a number."""
    column = log_changes.c
    rows = await transaction.execute(
        select(column.number, column.event_id)
        .where(column.shard == shard, column.number > after)
        .order_by(column.number)
        .limit(limit)
    )
    return [(number, event_id - (shard << POSITION_BITS)) for number, event_id in rows]


async def list_change_numbers(transaction: AsyncConnection) -> list[tuple[int, int]]:
    """The number of the last change of each shard."""
    column = log_heads.c
    rows = await transaction.execute(
        select(column.shard, column.change_number).order_by(column.shard)
    )
    return [(shard, number) for shard, number in rows]


async def list_rejected_texts(
    transaction: AsyncConnection, store_uid: str, *, after: int, limit: int
) -> list[RejectedText]:
    """A store's rejected events after an id, in order."""
    column = rejected_events.c
    rows = await transaction.execute(
        select(*_REJECTED_COLUMNS)
        .where(column.store_uid == store_uid, column.id > after)
        .order_by(column.id)
        .limit(limit)
    )
    return [RejectedText(*row) for row in rows]


def _store(store_uid: str) -> bytes:
    return parse_uid("sto", store_uid)


def _in_batches(keys: Sequence[Any]) -> Iterable[Sequence[Any]]:
    for start in range(0, len(keys), _KEYS_A_QUERY):
        yield keys[start : start + _KEYS_A_QUERY]


def _as_new(event: StoredEvent) -> NewEvent:
    return NewEvent(
        parse_new_uid("evt", event.uid),
        _store(event.store_uid),
        event.message_key,
        event.message_id,
        event.type,
        event.name,
        event.user_id,
        event.anonymous_id,
        event.occur_time,
        event.receive_time,
        int(event.receive_time.timestamp()) // 3600,
        event.payload,
        event.enrichment or b"",
    )
