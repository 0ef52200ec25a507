"""Brings the columns up to date with the listing, which follows the log."""

from __future__ import annotations

import asyncio
import logging

from common.cancellation import heed_cancellation
from common.db import Database
from common.log import describe_failure
from services.query import repository
from services.query.columns import EventColumns
from services.query.freshness import Cursor
from services.query.projection import fact_of, ids_after, position_of

log = logging.getLogger(__name__)

_PAGE_EVENTS = 2000


class ColumnKeeper:
    """Copies what is listed and isn't in the columns yet.

    The columns may be new and empty: they answer with what they have, and say how fresh that is.
    """

    def __init__(
        self, database: Database, columns: EventColumns, *, pause_seconds: float = 0.25
    ) -> None:
        self._database = database
        self._columns = columns
        self._pause_seconds = pause_seconds

    async def run(self) -> None:
        """Follow the listing until cancelled. A failure is logged, and tried again soon."""
        while True:
            heed_cancellation()
            try:
                if await self.copy_page():
                    continue
            except Exception as error:
                log.warning("columns not kept", extra=describe_failure(error))
            await asyncio.sleep(self._pause_seconds)

    async def copy_page(self) -> bool:
        """Copy some events of each shard; returns whether there were any."""
        known = {cursor.shard: cursor.position for cursor in await self._columns.cursors()}
        async with self._database.read() as snapshot:
            live = await repository.find_live_generation(snapshot)
            listed = await repository.list_cursors(snapshot, live)
        copied = [
            await self._copy(cursor, after_position=known.get(cursor.shard))
            for cursor in listed
            if cursor.position > known.get(cursor.shard, -1)
        ]
        return any(copied)

    async def _copy(self, listed: Cursor, *, after_position: int | None) -> bool:
        after_id, last_id = ids_after(listed.shard, after_position or 0)
        async with self._database.read() as snapshot:
            events = await repository.list_events_between(
                snapshot, after_id, last_id, limit=_PAGE_EVENTS
            )
        # The listing may have grown meanwhile, and what it holds by then is not all there is.
        events = [event for event in events if position_of(event) <= listed.position]
        reached = listed
        if len(events) == _PAGE_EVENTS and position_of(events[-1]) < listed.position:
            # What follows was stored after the last event was received.
            last = events[-1]
            reached = Cursor(listed.shard, position_of(last), last.receive_time)
        await self._columns.add(reached, [fact_of(event) for event in events])
        return bool(events)
