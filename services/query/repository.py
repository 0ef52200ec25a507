"""Query's SQL, but for what writes figures.

Functions take the caller's transaction and never end it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Subquery,
    Table,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from common.db import delete_some
from common.uid import parse_new_uid, parse_uid
from services.query import bulk
from services.query.bulk import time_text
from services.query.freshness import Cursor
from services.query.projection import RecordedEvent
from services.query.quarters import QUARTERS_A_DAY, split_into_days, time_of
from services.query.reports import Stretch
from services.query.tables import (
    FIGURES,
    generation_cursors,
    generations,
    recorded_events,
    tallies,
    tally_days,
)

BUILDING, LIVE, REPLACED = 1, 2, 3
"""The states of a generation."""

_EVENT_COLUMNS = [recorded_events.c[name] for name in RecordedEvent.__struct_fields__]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which tallies of a store a report is made of."""

    generation: int
    store_uid: str
    first_quarter: int
    end_quarter: int
    """Not included."""
    measures: Sequence[int]
    names: Sequence[str] = ()
    """Empty for all."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an event stands in the listing, and what its payload weighs."""

    id: int
    occur_time: datetime
    payload_bytes: int


async def find_live_generation(transaction: AsyncConnection) -> int:
    """The generation of figures that answers; 0, which has none, before the first began."""
    statement = select(generations.c.generation).where(generations.c.state == LIVE)
    return int(await transaction.scalar(statement) or 0)


async def list_current_generations(transaction: AsyncConnection) -> list[int]:
    """The generations that follow the log: the one that answers, and one that is being built."""
    statement = (
        select(generations.c.generation)
        .where(generations.c.state != REPLACED)
        .order_by(generations.c.generation)
    )
    return list((await transaction.execute(statement)).scalars())


async def add_first_generation(transaction: AsyncConnection) -> None:
    """Make sure that there is a generation."""
    if await find_live_generation(transaction):
        return
    try:
        async with transaction.begin_nested():
            await transaction.execute(insert(generations).values(generation=1, state=LIVE))
    except IntegrityError:
        return  # Another replica made it meanwhile.


async def begin_generation(transaction: AsyncConnection) -> int | None:
    """Add a generation to be built; None if one is being built already, or none answers yet."""
    live = await find_live_generation(transaction)
    if not live or await lock_generation(transaction, live) != LIVE:
        return None
    rows = (await transaction.execute(select(generations.c.generation, generations.c.state))).all()
    if any(state == BUILDING for _, state in rows):
        return None
    generation: int = 1 + max(number for number, _ in rows)
    await transaction.execute(insert(generations).values(generation=generation, state=BUILDING))
    return generation


async def replace_live_by(transaction: AsyncConnection, generation: int) -> bool:
    """Let a generation answer that is being built, if no shard of it is behind."""
    live = await find_live_generation(transaction)
    if await lock_generation(transaction, live) != LIVE:
        return False
    if await lock_generation(transaction, generation) != BUILDING:
        return False
    built = {
        cursor.shard: cursor.position for cursor in await list_cursors(transaction, generation)
    }
    for cursor in await list_cursors(transaction, live):
        if built.get(cursor.shard, 0) < cursor.position:
            return False
    for number, state in ((live, REPLACED), (generation, LIVE)):
        await transaction.execute(
            update(generations).where(generations.c.generation == number).values(state=state)
        )
    return True


async def drop_replaced_figures(transaction: AsyncConnection, *, limit: int) -> int:
    """Remove figures that don't answer any more; returns how many rows, 0 when all are gone."""
    replaced = select(generations.c.generation).where(generations.c.state == REPLACED)
    generation = await transaction.scalar(replaced.limit(1))
    if generation is None:
        return 0
    for table in (*FIGURES, generation_cursors):
        of_it = table.c.generation == generation
        if count := await delete_some(transaction, table, of_it, limit=limit):
            return count
    gone = await transaction.execute(
        delete(generations).where(generations.c.generation == generation)
    )
    return gone.rowcount


async def get_state(transaction: AsyncConnection, generation: int) -> int | None:
    """A generation's state, if it is there."""
    statement = select(generations.c.state).where(generations.c.generation == generation)
    state: int | None = await transaction.scalar(statement)
    return state


async def lock_generation(transaction: AsyncConnection, generation: int) -> int | None:
    """Lock a generation's figures until the transaction ends; returns its state, if it is there."""
    statement = (
        select(generations.c.state).where(generations.c.generation == generation).with_for_update()
    )
    state: int | None = await transaction.scalar(statement)
    return state


async def add_cursors(transaction: AsyncConnection, generation: int, *, shard_count: int) -> None:
    """Make sure that each shard has a cursor, a new one at the beginning of the log."""
    # Locked, since all cursors of a shard must go by the same change.
    live = await find_live_generation(transaction)
    await lock_generation(transaction, live)
    changes = {
        cursor.shard: cursor.change_number for cursor in await list_cursors(transaction, live)
    }
    known = {cursor.shard for cursor in await list_cursors(transaction, generation)}
    for shard in range(shard_count):
        if shard not in known:
            try:
                async with transaction.begin_nested():
                    await transaction.execute(
                        insert(generation_cursors).values(
                            generation=generation,
                            shard=shard,
                            position=0,
                            change_number=changes.get(shard, 0),
                        )
                    )
            except IntegrityError:
                continue  # Another replica made it meanwhile.


async def list_cursors(transaction: AsyncConnection, generation: int) -> list[Cursor]:
    """How far each shard has been read for a generation."""
    column = generation_cursors.c
    statement = select(
        column.shard, column.position, column.as_of_time, column.change_number
    ).where(column.generation == generation)
    return [Cursor(*row) for row in await transaction.execute(statement)]


async def move_cursor(
    transaction: AsyncConnection, generation: int, old: Cursor, new: Cursor
) -> bool:
    """Move a shard's cursor, which stays locked until the transaction ends.

    Returns False, and moves nothing, if it isn't where `old` says, or the events before it
    have been overwritten meanwhile.
    """
    column = generation_cursors.c
    moved = await transaction.execute(
        update(generation_cursors)
        .where(
            column.generation == generation,
            column.shard == old.shard,
            column.position == old.position,
            column.change_number == old.change_number,
        )
        .values(position=new.position, as_of_time=new.as_of_time)
    )
    return moved.rowcount == 1


async def add_events(transaction: AsyncConnection, events: Sequence[RecordedEvent]) -> None:
    """Add events to the listing, in the order of their ids. Those that are there stay."""
    await bulk.put(
        transaction,
        recorded_events,
        [
            (
                event.id,
                parse_new_uid("evt", event.uid),
                parse_uid("sto", event.store_uid),
                event.message_id,
                event.type,
                event.name.encode(),
                event.page_name,
                event.user_id,
                event.anonymous_id,
                time_text(event.occur_time),
                time_text(event.receive_time),
                event.payload,
                event.trust,
                event.device,
                event.browser,
                event.consent,
            )
            for event in events
        ],
    )


async def rank_names(
    transaction: AsyncConnection, selection: Selection, *, limit: int
) -> list[tuple[int, str, int]]:
    """The measures, names and sums of the selected tallies, the greatest first."""
    found = tallied(selection)
    total = func.sum(found.c.tally).label("total")
    statement = (
        select(found.c.measure, found.c.name, total)
        .group_by(found.c.measure, found.c.name)
        .order_by(total.desc(), found.c.name, found.c.measure)
        .limit(limit)
    )
    return [
        (measure, name, int(tally)) for measure, name, tally in await transaction.execute(statement)
    ]


async def count_all(transaction: AsyncConnection, selection: Selection) -> int:
    """The sum of the selected tallies."""
    total = select(func.sum(tallied(selection).c.tally))
    return int(await transaction.scalar(total) or 0)


async def count_by_period(
    transaction: AsyncConnection, selection: Selection, stretch: Stretch
) -> list[tuple[int, str, int, int]]:
    """Measure, name, index of the period and sum, of each period that has any.

    The stretch stands in for the selection's quarters.
    """
    # The database divides: a report over years has more quarters than can be fetched.
    in_stretch = replace(
        selection, first_quarter=stretch.first_quarter, end_quarter=stretch.end_quarter
    )
    table, selected = tallies, _selected(in_stretch)
    quarter: ColumnElement[int] = tallies.c.quarter
    first_day, end_day, edges = split_into_days(stretch.first_quarter, stretch.end_quarter)
    if not edges and not stretch.period_quarters % QUARTERS_A_DAY:
        table = tally_days
        quarter = table.c.day * QUARTERS_A_DAY
        selected = and_(
            _of_selection(table, selection), table.c.day >= first_day, table.c.day < end_day
        )
    statement = (
        select(table.c.measure, table.c.name, period_in(quarter, stretch), func.sum(table.c.tally))
        .where(selected)
        .group_by(table.c.measure, table.c.name, "period")
    )
    return [
        (measure, name, stretch.first_period + int(index), int(tally))
        for measure, name, index, tally in await transaction.execute(statement)
    ]


def tallied(selection: Selection) -> Subquery:
    """The selected tallies: of whole days by day, of what is left at both ends by quarter."""
    first_day, end_day, edges = split_into_days(selection.first_quarter, selection.end_quarter)
    day = tally_days.c.day
    parts = [
        select(tally_days.c.measure, tally_days.c.name, tally_days.c.tally).where(
            _of_selection(tally_days, selection), day >= first_day, day < end_day
        )
    ]
    parts += [
        select(tallies.c.measure, tallies.c.name, tallies.c.tally).where(
            _selected(replace(selection, first_quarter=first, end_quarter=end))
        )
        for first, end in edges
    ]
    return union_all(*parts).subquery()


def period_in(quarter: ColumnElement[int], stretch: Stretch) -> ColumnElement[int]:
    """The index, within the stretch, of the period that a quarter belongs to."""
    return ((quarter - stretch.first_quarter) // stretch.period_quarters).label("period")


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


async def count_events(
    transaction: AsyncConnection,
    *,
    store_uid: str,
    name: str,
    start_time: datetime | None,
    end_time: datetime | None,
) -> int:
    """How many events `list_places` lists in all."""
    column = recorded_events.c
    statement = select(func.count()).where(column.store_uid == store_uid)
    if name:
        statement = statement.where(column.name == name)
    if start_time is not None:
        statement = statement.where(column.occur_time >= start_time)
    if end_time is not None:
        statement = statement.where(column.occur_time < end_time)
    return int(await transaction.scalar(statement) or 0)


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


async def list_events_between(
    transaction: AsyncConnection, after_id: int, before_id: int, *, limit: int
) -> list[RecordedEvent]:
    """The events with ids between the two, in the order of the log."""
    column = recorded_events.c
    statement = (
        select(*_EVENT_COLUMNS)
        .where(column.id > after_id, column.id < before_id)
        .order_by(column.id)
        .limit(limit)
    )
    return [RecordedEvent(*row) for row in await transaction.execute(statement)]


async def list_places_between(
    transaction: AsyncConnection, store_uid: str, after_id: int, before_id: int, *, limit: int
) -> list[Place]:
    """Where a store's events stand that have ids between the two, in the order of the log."""
    column = recorded_events.c
    statement = (
        select(column.id, column.occur_time, func.length(column.payload))
        .where(column.store_uid == store_uid, column.id > after_id, column.id < before_id)
        .order_by(column.id)
        .limit(limit)
    )
    return [Place(*row) for row in await transaction.execute(statement)]


async def get_places(
    transaction: AsyncConnection, *, store_uid: str, ids: Sequence[int]
) -> list[Place]:
    """Where the events with these ids stand, the latest first."""
    column = recorded_events.c
    statement = (
        select(column.id, column.occur_time, func.length(column.payload))
        .where(column.store_uid == store_uid, column.id.in_(ids))
        .order_by(column.occur_time.desc(), column.id.desc())
    )
    return [Place(*row) for row in await transaction.execute(statement)]


async def find_next_store(transaction: AsyncConnection, after: str | None) -> str | None:
    """The store that follows in the order of uids among those with events, if there is one."""
    column = recorded_events.c
    statement = select(column.store_uid).order_by(column.store_uid).limit(1)
    if after is not None:
        statement = statement.where(column.store_uid > after)
    found: str | None = await transaction.scalar(statement)
    return found


async def count_differences(transaction: AsyncConnection, selection: Selection) -> int:
    """How many types and names have another tally than they have events in the listing.

    One statement, since a second would see what was stored meanwhile.
    """
    column = recorded_events.c
    listed = (
        select(column.type.label("measure"), column.name, (-func.count()).label("surplus"))
        .where(
            column.store_uid == selection.store_uid,
            column.occur_time >= time_of(selection.first_quarter),
            column.occur_time < time_of(selection.end_quarter),
        )
        .group_by(column.type, column.name)
    )
    counted = (
        select(tallies.c.measure, tallies.c.name, func.sum(tallies.c.tally).label("surplus"))
        .where(_selected(selection))
        .group_by(tallies.c.measure, tallies.c.name)
    )
    both = union_all(listed, counted).subquery()
    different = (
        select(both.c.name)
        .group_by(both.c.measure, both.c.name)
        .having(func.sum(both.c.surplus) != 0)
        .subquery()
    )
    return int(await transaction.scalar(select(func.count()).select_from(different)) or 0)


def _selected(selection: Selection) -> ColumnElement[bool]:
    return and_(
        _of_selection(tallies, selection),
        tallies.c.quarter >= selection.first_quarter,
        tallies.c.quarter < selection.end_quarter,
    )


def _of_selection(table: Table, selection: Selection) -> ColumnElement[bool]:
    """All of the selection but for its range."""
    conditions = [
        table.c.generation == selection.generation,
        table.c.store_uid == selection.store_uid,
        table.c.measure.in_(selection.measures),
    ]
    if selection.names:
        conditions.append(table.c.name.in_(selection.names))
    return and_(*conditions)
