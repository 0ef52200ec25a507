"""Notices events that used to happen and don't any more."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import pairwise

from prometheus_client import Gauge
from sqlalchemy import delete, func, insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from common.db import Database
from common.log import describe_failure
from services.query.projection import type_name
from services.query.quarters import QUARTER, quarter_of, time_of
from services.query.tables import silent_events, tallies
from services.query.tallies import EVENT_TYPES

log = logging.getLogger(__name__)

_SILENT = Gauge("query_silent_events", "Events, by name and store, that have fallen silent.")

_LOOKED_BACK = timedelta(days=14)
_LEAST_EVENTS = 20
_LEAST_SILENCE = timedelta(hours=1)
_LONGER_THAN_EVER = 2

NamedEvent = tuple[int, str]
"""A type and a name."""


def silence_of(quarters: Sequence[tuple[int, int]], *, now: datetime) -> datetime | None:
    """Since when an event is silent, if it is.

    `quarters` are those of the last two weeks in which it happened, in order, and how often. It
    is silent if it used to happen, and hasn't for an hour and for more than twice as long as it
    ever paused. To the quarter, at the end of the last one in which it happened.
    """
    if sum(count for _, count in quarters) < _LEAST_EVENTS:
        return None
    numbers = [quarter for quarter, _ in quarters]
    longest = max(
        (later - earlier - 1 for earlier, later in pairwise(numbers)),
        default=0,
    )
    since = time_of(numbers[-1] + 1)
    if now - since > max(_LEAST_SILENCE, _LONGER_THAN_EVER * longest * QUARTER):
        return since
    return None


async def find_silent_events(
    snapshot: AsyncConnection, generation: int, store_uid: str, *, now: datetime
) -> dict[NamedEvent, datetime]:
    """Which of a store's events are silent, and since when."""
    happened = await _find_quarters(snapshot, generation, store_uid, now=now)
    found = {named: silence_of(quarters, now=now) for named, quarters in happened.items()}
    return {named: since for named, since in found.items() if since is not None}


async def _find_quarters(
    snapshot: AsyncConnection, generation: int, store_uid: str, *, now: datetime
) -> dict[NamedEvent, list[tuple[int, int]]]:
    """In which quarters of the last two weeks a store's events happened, and how often."""
    column = tallies.c
    rows = await snapshot.execute(
        select(column.measure, column.name, column.quarter, column.tally)
        .where(
            column.generation == generation,
            column.store_uid == store_uid,
            column.measure.in_(EVENT_TYPES),
            column.quarter >= quarter_of(now - _LOOKED_BACK),
        )
        .order_by(column.measure, column.quarter)
    )
    happened: defaultdict[NamedEvent, list[tuple[int, int]]] = defaultdict(list)
    for measure, name, quarter, tally in rows:
        happened[measure, name].append((quarter, tally))
    return happened


async def note_silent_events(
    transaction: AsyncConnection, generation: int, store_uid: str, *, now: datetime
) -> int:
    """Note which of a store's events are silent; returns how many of them are so newly.

    Each that falls silent gets a line in the log, and one when it is heard again. After two
    weeks it is taken for gone.
    """
    happened = await _find_quarters(transaction, generation, store_uid, now=now)
    found = {named: silence_of(quarters, now=now) for named, quarters in happened.items()}
    silent = {named: since for named, since in found.items() if since is not None}
    column = silent_events.c
    rows = await transaction.execute(
        select(column.type, column.name).where(column.store_uid == store_uid)
    )
    known: set[NamedEvent] = {(row.type, row.name) for row in rows}
    for kind, name in sorted(known - silent.keys()):
        await transaction.execute(
            delete(silent_events).where(
                column.store_uid == store_uid, column.type == kind, column.name == name
            )
        )
        message = "event heard again" if (kind, name) in happened else "silent event given up"
        log.info(message, extra=_describe(store_uid, kind, name))
    fallen = sorted(silent.keys() - known)
    for kind, name in fallen:
        await transaction.execute(
            insert(silent_events).values(
                store_uid=store_uid, type=kind, name=name, silent_since=silent[kind, name]
            )
        )
        log.warning(
            "event fell silent",
            extra={
                **_describe(store_uid, kind, name),
                "silent_since": silent[kind, name].isoformat(),
            },
        )
    return len(fallen)


@asynccontextmanager
async def silence_measured(database: Database, *, every_seconds: float) -> AsyncIterator[None]:
    """Keep the metric of silent events true for the block, on whatever replica the job ran."""

    async def keep_measuring() -> None:
        while True:
            try:
                async with database.read() as snapshot:
                    counted = await snapshot.scalar(select(func.count()).select_from(silent_events))
            except (SQLAlchemyError, OSError) as error:
                log.warning("silent events not counted", extra=describe_failure(error))
            else:
                _SILENT.set(int(counted or 0))
            await asyncio.sleep(every_seconds)

    measuring = asyncio.create_task(keep_measuring())
    try:
        yield
    finally:
        measuring.cancel()
        await asyncio.wait([measuring])


def _describe(store_uid: str, kind: int, name: str) -> dict[str, str]:
    return {"store_uid": store_uid, "event_type": type_name(kind), "event_name": name}
