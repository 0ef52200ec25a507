"""Query's SQL. Functions take the caller's transaction and never end it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, insert, or_, select, union_all, update
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.query.freshness import Cursor
from services.query.projection import CountKey, RecordedEvent
from services.query.quarters import time_of
from services.query.reports import Stretch
from services.query.tables import cursors, event_counts, recorded_events

_EVENT_COLUMNS = [recorded_events.c[field.name] for field in fields(RecordedEvent)]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events of a store a report counts."""

    store_uid: str
    first_quarter: int
    end_quarter: int
    """Not included."""
    names: Sequence[str]
    """Empty for all."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an event stands in the listing, and what its payload weighs."""

    id: int
    occur_time: datetime
    payload_bytes: int


async def add_cursors(transaction: AsyncConnection, *, shard_count: int) -> None:
    """Make sure that each shard has a cursor, a new one at the beginning of the log."""
    known = {cursor.shard for cursor in await list_cursors(transaction)}
    for shard in range(shard_count):
        if shard not in known:
            try:
                async with transaction.begin_nested():
                    await transaction.execute(insert(cursors).values(shard=shard, position=0))
            except IntegrityError:
                continue  # Another replica made it meanwhile.


async def list_cursors(transaction: AsyncConnection) -> list[Cursor]:
    """How far each shard has been read."""
    statement = select(cursors.c.shard, cursors.c.position, cursors.c.as_of_time)
    return [Cursor(*row) for row in await transaction.execute(statement)]


async def move_cursor(transaction: AsyncConnection, old: Cursor, new: Cursor) -> bool:
    """Move a shard's cursor, which stays locked until the transaction ends.

    Returns False, and moves nothing, if it isn't where `old` says.
    """
    moved = await transaction.execute(
        update(cursors)
        .where(cursors.c.shard == old.shard, cursors.c.position == old.position)
        .values(position=new.position, as_of_time=new.as_of_time)
    )
    return moved.rowcount == 1


async def add_counts(transaction: AsyncConnection, counts: Mapping[CountKey, int]) -> None:
    """Count events that were not counted before."""
    rows = [
        {
            "store_uid": key.store_uid,
            "quarter": key.quarter,
            "name": key.name,
            "event_count": event_count,
        }
        for key, event_count in sorted(counts.items())
    ]
    if transaction.dialect.name == "sqlite":
        on_sqlite = sqlite.insert(event_counts)
        total = event_counts.c.event_count + on_sqlite.excluded.event_count
        await transaction.execute(
            on_sqlite.on_conflict_do_update(set_={"event_count": total}), rows
        )
    else:
        on_mysql = mysql.insert(event_counts)
        total = event_counts.c.event_count + on_mysql.inserted.event_count
        await transaction.execute(on_mysql.on_duplicate_key_update(event_count=total), rows)


async def add_events(transaction: AsyncConnection, events: Sequence[RecordedEvent]) -> None:
    """Add events to the listing, in the order of their ids."""
    rows = [
        {column.name: getattr(event, column.name) for column in _EVENT_COLUMNS} for event in events
    ]
    await transaction.execute(insert(recorded_events), rows)


async def rank_names(
    transaction: AsyncConnection, selection: Selection, *, limit: int
) -> list[tuple[str, int]]:
    """The names of the selected events and how often each happened, the most frequent first."""
    total = func.sum(event_counts.c.event_count).label("total")
    statement = (
        select(event_counts.c.name, total)
        .where(_selected(selection))
        .group_by(event_counts.c.name)
        .order_by(total.desc(), event_counts.c.name)
        .limit(limit)
    )
    return [(name, int(count)) for name, count in await transaction.execute(statement)]


async def count_all(transaction: AsyncConnection, selection: Selection) -> int:
    """How many the selected events are."""
    total = select(func.sum(event_counts.c.event_count)).where(_selected(selection))
    return int(await transaction.scalar(total) or 0)


async def count_by_period(
    transaction: AsyncConnection, *, store_uid: str, stretch: Stretch, names: Sequence[str]
) -> list[tuple[str, int, int]]:
    """Name, index of the period and number of events, of each period in which any happened."""
    # The database divides: a report over years has more quarters than can be fetched.
    period = ((event_counts.c.quarter - stretch.first_quarter) // stretch.period_quarters).label(
        "period"
    )
    selection = Selection(store_uid, stretch.first_quarter, stretch.end_quarter, names)
    statement = (
        select(event_counts.c.name, period, func.sum(event_counts.c.event_count))
        .where(_selected(selection))
        .group_by(event_counts.c.name, "period")
    )
    return [
        (name, stretch.first_period + int(index), int(count))
        for name, index, count in await transaction.execute(statement)
    ]


async def list_places(
    transaction: AsyncConnection,
    *,
    store_uid: str,
    name: str,
    start_time: datetime | None,
    end_time: datetime | None,
    after: tuple[datetime, int] | None,
    limit: int,
) -> list[Place]:
    """Where the store's events stand, the latest first, behind the time and id of `after`."""
    column = recorded_events.c
    statement = (
        select(column.id, column.occur_time, func.length(column.payload))
        .where(column.store_uid == store_uid)
        .order_by(column.occur_time.desc(), column.id.desc())
        .limit(limit)
    )
    if name:
        statement = statement.where(column.name == name)
    if start_time is not None:
        statement = statement.where(column.occur_time >= start_time)
    if end_time is not None:
        statement = statement.where(column.occur_time < end_time)
    if after is not None:
        time, identifier = after
        statement = statement.where(
            # Said first as a range, which an index can begin at.
            column.occur_time <= time,
            or_(column.occur_time < time, column.id < identifier),
        )
    return [Place(*row) for row in await transaction.execute(statement)]


async def get_events(
    transaction: AsyncConnection, *, store_uid: str, ids: Sequence[int]
) -> list[RecordedEvent]:
    """The events with these ids, the latest first."""
    column = recorded_events.c
    statement = (
        select(*_EVENT_COLUMNS)
        .where(column.store_uid == store_uid, column.id.in_(ids))
        .order_by(column.occur_time.desc(), column.id.desc())
    )
    return [RecordedEvent(*row) for row in await transaction.execute(statement)]


async def find_next_store(transaction: AsyncConnection, after: str | None) -> str | None:
    """The store that follows in the order of uids among those with events, if there is one."""
    column = recorded_events.c
    statement = select(column.store_uid).order_by(column.store_uid).limit(1)
    if after is not None:
        statement = statement.where(column.store_uid > after)
    found: str | None = await transaction.scalar(statement)
    return found


async def count_differences(transaction: AsyncConnection, selection: Selection) -> int:
    """How many names have another count than they have events in the listing.

    One statement, since a second would see what was stored meanwhile.
    """
    listed = (
        select(recorded_events.c.name, (-func.count()).label("surplus"))
        .where(
            recorded_events.c.store_uid == selection.store_uid,
            recorded_events.c.occur_time >= time_of(selection.first_quarter),
            recorded_events.c.occur_time < time_of(selection.end_quarter),
        )
        .group_by(recorded_events.c.name)
    )
    counted = (
        select(event_counts.c.name, func.sum(event_counts.c.event_count).label("surplus"))
        .where(_selected(selection))
        .group_by(event_counts.c.name)
    )
    both = union_all(listed, counted).subquery()
    different = (
        select(both.c.name).group_by(both.c.name).having(func.sum(both.c.surplus) != 0).subquery()
    )
    return int(await transaction.scalar(select(func.count()).select_from(different)) or 0)


def _selected(selection: Selection) -> ColumnElement[bool]:
    conditions = [
        event_counts.c.store_uid == selection.store_uid,
        event_counts.c.quarter >= selection.first_quarter,
        event_counts.c.quarter < selection.end_quarter,
    ]
    if selection.names:
        conditions.append(event_counts.c.name.in_(selection.names))
    return and_(*conditions)
