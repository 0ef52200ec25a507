"""Query's SQL for what was overwritten in the log.

Functions take the caller's transaction and never end it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Table,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from services.query import bulk, repository
from services.query.projection import RecordedEvent, ids_after
from services.query.sessions import Session, hits_of
from services.query.tables import (
    FIGURES,
    carried_events,
    column_copies,
    generation_cursors,
    generations,
    listed_changes,
    owners,
    recorded_events,
    representatives,
    sessions,
    visits,
)

CARRIED = 0
"""The generation that holds the figures of what has expired, and never answers."""

_MOST_KEYS = 300
_EVENT_COLUMNS = [recorded_events.c[name] for name in RecordedEvent.__struct_fields__]


@dataclass(frozen=True, slots=True)
class Copy:
    """How far a copy of the listing is in a shard."""

    uid: str
    shard: int
    change_number: int


async def get_listed(
    transaction: AsyncConnection, ids: Collection[int]
) -> dict[int, RecordedEvent]:
    """The events of the listing with these ids, by id."""
    found: dict[int, RecordedEvent] = {}
    for some in _in_batches(sorted(ids)):
        rows = await transaction.execute(
            select(*_EVENT_COLUMNS).where(recorded_events.c.id.in_(some))
        )
        found |= {row[0]: RecordedEvent(*row) for row in rows}
    return found


async def overwrite_listed(transaction: AsyncConnection, events: Sequence[RecordedEvent]) -> None:
    """Put events in the places of those with their ids."""
    for some in _in_batches([event.id for event in events]):
        await transaction.execute(delete(recorded_events).where(recorded_events.c.id.in_(some)))
    await repository.add_events(transaction, events)


async def add_changes(transaction: AsyncConnection, shard: int, changes: Mapping[int, int]) -> None:
    """Note the events that changes were about, by the changes' numbers."""
    rows = [(shard, number, event_id) for number, event_id in sorted(changes.items())]
    await bulk.put(transaction, listed_changes, rows)


async def set_change_number(
    transaction: AsyncConnection, shard: int, *, generations: Collection[int], number: int
) -> None:
    """Say that the generations' figures are as a change left the log's shard."""
    column = generation_cursors.c
    await transaction.execute(
        update(generation_cursors)
        .where(column.generation.in_(sorted(generations)), column.shard == shard)
        .values(change_number=number)
    )


async def find_carried(transaction: AsyncConnection, ids: Collection[int]) -> set[int]:
    """Which of these events have expired, with their figures carried over."""
    found: set[int] = set()
    for some in _in_batches(sorted(ids)):
        rows = await transaction.execute(
            select(carried_events.c.event_id).where(carried_events.c.event_id.in_(some))
        )
        found.update(rows.scalars())
    return found


async def add_carried(transaction: AsyncConnection, ids: Collection[int]) -> None:
    """Note that the figures of these events are carried over."""
    if ids:
        await transaction.execute(
            insert(carried_events), [{"event_id": event_id} for event_id in sorted(ids)]
        )


async def carries_people(
    transaction: AsyncConnection, store_uid: str, first_quarter: int, end_quarter: int
) -> bool:
    """Whether expired events tell of people of a store, by their ids or visits in a range."""
    of_store = [
        select(literal(1)).where(table.c.generation == CARRIED, table.c.store_uid == store_uid)
        for table in (owners, representatives, visits)
    ]
    of_store[-1] = of_store[-1].where(
        visits.c.quarter >= first_quarter, visits.c.quarter < end_quarter
    )
    found = select(or_(*(one.exists() for one in of_store)))
    return bool(await transaction.scalar(found))


async def carry_over(transaction: AsyncConnection, generation: int) -> None:
    """Let a new generation begin with the figures of what has expired."""
    for table in FIGURES:
        names = [column.name for column in table.c if column.name != "generation"]
        carried = select(literal(generation), *(table.c[name] for name in names)).where(
            table.c.generation == CARRIED
        )
        await transaction.execute(
            insert(table).from_select(["generation", *names], carried, include_defaults=False)
        )


async def list_changed_ids(
    transaction: AsyncConnection, shard: int, *, after: int, limit: int
) -> list[tuple[int, int]]:
    """Numbers and event ids of changes after a number."""
    column = listed_changes.c
    rows = await transaction.execute(
        select(column.number, column.event_id)
        .where(column.shard == shard, column.number > after)
        .order_by(column.number)
        .limit(limit)
    )
    return [(number, event_id) for number, event_id in rows]


async def put_copy(transaction: AsyncConnection, copy: Copy, now: datetime) -> None:
    """Note how far a copy is."""
    values = {"change_number": copy.change_number, "report_time": now}
    statement: Any = (
        sqlite.insert(column_copies).on_conflict_do_update(set_=values)
        if transaction.dialect.name == "sqlite"
        else mysql.insert(column_copies).on_duplicate_key_update(values)
    )
    await transaction.execute(statement, [{"uid": copy.uid, "shard": copy.shard, **values}])


async def list_copies(transaction: AsyncConnection, *, seen_after: datetime) -> list[Copy]:
    """The copies that told how far they are after a time."""
    column = column_copies.c
    rows = await transaction.execute(
        select(column.uid, column.shard, column.change_number).where(
            column.report_time > seen_after
        )
    )
    return [Copy(*row) for row in rows]


async def forget_copies(transaction: AsyncConnection, *, seen_before: datetime) -> int:
    """Forget copies that have told nothing since a time; returns how many rows."""
    gone = await transaction.execute(
        delete(column_copies).where(column_copies.c.report_time < seen_before)
    )
    return gone.rowcount


async def forget_subject(
    transaction: AsyncConnection,
    store_uid: str,
    *,
    user_ids: Collection[str],
    anonymous_ids: Collection[str],
    users: Collection[bytes],
    browsers: Collection[bytes],
) -> None:
    """Remove what is left of a person in any generation, as of events that have expired."""
    conditions = await _conditions_of(
        transaction,
        store_uid,
        user_ids=user_ids,
        anonymous_ids=anonymous_ids,
        users=users,
        browsers=browsers,
    )
    for table, condition in conditions:
        if table is not recorded_events:
            await transaction.execute(delete(table).where(condition))


async def count_subject(
    transaction: AsyncConnection,
    store_uid: str,
    *,
    user_ids: Collection[str],
    anonymous_ids: Collection[str],
    users: Collection[bytes],
    browsers: Collection[bytes],
) -> dict[str, int]:
    """How many rows of each table are about a person, in all generations there are."""
    conditions = await _conditions_of(
        transaction,
        store_uid,
        user_ids=user_ids,
        anonymous_ids=anonymous_ids,
        users=users,
        browsers=browsers,
    )
    counts: Counter[str] = Counter()
    for table, condition in conditions:
        counts[table.name] += await _count(transaction, table, condition)
    return dict(counts)


async def _conditions_of(
    transaction: AsyncConnection,
    store_uid: str,
    *,
    user_ids: Collection[str],
    anonymous_ids: Collection[str],
    users: Collection[bytes],
    browsers: Collection[bytes],
) -> list[tuple[Table, ColumnElement[bool]]]:
    """Which rows of which tables are about a person. Each is found by a key or an index."""
    known = (await transaction.execute(select(generations.c.generation))).scalars()
    all_generations = sorted({CARRIED, *known})

    def of_store(table: Table) -> ColumnElement[bool]:
        return table.c.generation.in_(all_generations) & (table.c.store_uid == store_uid)

    listed, ids = recorded_events.c, sorted(user_ids)
    conditions: list[tuple[Table, ColumnElement[bool]]] = [
        (recorded_events, (listed.store_uid == store_uid) & listed.user_id.in_(ids)),
        (
            recorded_events,
            (listed.store_uid == store_uid)
            & (listed.user_id == "")
            & listed.anonymous_id.in_(sorted(anonymous_ids)),
        ),
        (visits, of_store(visits) & visits.c.subject.in_(sorted({*users, *browsers}))),
        (owners, of_store(owners) & owners.c.user.in_(sorted(users))),
        (
            representatives,
            of_store(representatives) & representatives.c.subject.in_(sorted(users)),
        ),
        (
            representatives,
            of_store(representatives)
            & representatives.c.representative.in_(sorted(users))
            & representatives.c.subject.not_in(sorted(users)),
        ),
    ]
    of_browsers = of_store(sessions) & sessions.c.subject.in_(sorted(browsers))
    if not await _has_hits_of_others(
        transaction, store_uid, of_browsers, user_ids=user_ids, anonymous_ids=anonymous_ids
    ):
        # On a device that others use too, what is left are their sessions.
        conditions.append((sessions, of_browsers))
    return conditions


async def _has_hits_of_others(
    transaction: AsyncConnection,
    store_uid: str,
    of_browsers: ColumnElement[bool],
    *,
    user_ids: Collection[str],
    anonymous_ids: Collection[str],
) -> bool:
    """Whether these sessions have an event that somebody else did while known by name."""
    column = recorded_events.c
    rows = (
        await transaction.execute(
            select(sessions.c.generation, sessions.c.session).where(of_browsers)
        )
    ).all()
    made_of = [msgspec.msgpack.decode(session, type=Session) for _, session in rows]
    if {generation for generation, _ in rows} <= {
        await repository.find_live_generation(transaction)
    }:
        # It has a hit for each listed event, so mostly there is no need to look for each of them.
        own_count = await _count(
            transaction,
            recorded_events,
            (column.store_uid == store_uid)
            & column.user_id.in_(["", *sorted(user_ids)])
            & column.anonymous_id.in_(sorted(anonymous_ids)),
        )
        if own_count == sum(session.hit_count for session in made_of):
            return False
    times = sorted({hit.time for session in made_of for hit in hits_of(session)})
    for some in _in_batches(times):
        found = await transaction.scalar(
            select(column.id)
            .where(
                column.store_uid == store_uid,
                column.occur_time.in_(some),
                column.anonymous_id.in_(sorted(anonymous_ids)),
                column.user_id.not_in(["", *sorted(user_ids)]),
            )
            .limit(1)
        )
        if found is not None:
            return True
    return False


async def _count(transaction: AsyncConnection, table: Table, condition: ColumnElement[bool]) -> int:
    statement = select(func.count()).select_from(table).where(condition)
    return int(await transaction.scalar(statement) or 0)


async def count_listed(transaction: AsyncConnection, shard: int, *, after: int, end: int) -> int:
    """How many events the listing has of a shard after a position, up to another."""
    (first, last) = ids_after(shard, after)[0], ids_after(shard, end)[0]
    statement = select(func.count()).select_from(recorded_events)
    column = recorded_events.c.id
    return int(await transaction.scalar(statement.where(column > first, column <= last)) or 0)


async def list_sessions(
    transaction: AsyncConnection,
    generation: int,
    store_uid: str,
    subjects: Collection[bytes],
    *,
    after: tuple[bytes, datetime] | None,
    limit: int,
) -> list[tuple[bytes, Session]]:
    """The sessions of some browsers, by browser and time, with what stands for the browser."""
    column = sessions.c
    statement = (
        select(column.subject, column.session)
        .where(
            column.generation == generation,
            column.store_uid == store_uid,
            column.subject.in_(sorted(subjects)),
        )
        .order_by(column.subject, column.start_time)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(tuple_(column.subject, column.start_time) > tuple_(*after))
    return [
        (bytes(subject), msgspec.msgpack.decode(session, type=Session))
        for subject, session in await transaction.execute(statement)
    ]


def _in_batches(keys: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(keys), _MOST_KEYS):
        yield keys[start : start + _MOST_KEYS]
