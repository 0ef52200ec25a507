"""Brings the columns up to date with the listing, which follows the log."""

from __future__ import annotations

import asyncio
import logging
import time

from common.cancellation import heed_cancellation
from common.db import Database, database_now
from common.log import describe_failure
from common.uid import new_uid
from services.query import change_repository, repository
from services.query.change_repository import Copy
from services.query.columns import EventColumns
from services.query.freshness import Cursor
from services.query.handover import Handover
from services.query.projection import fact_of, ids_after, position_of

log = logging.getLogger(__name__)

_PAGE_EVENTS = 2000
_PAUSE_AFTER_FAILURE_SECONDS = 0.25


class ColumnKeeper:
    """Copies what is listed and isn't in the columns yet.

    It does so when the handover has word of something new; and looks by itself every
    `pause_seconds`, since other replicas may have listed something. When it has copied a few
    events it rests for `rest_seconds`, so that more come together: to copy a page costs far more
    than each of its events does. Every `tidy_seconds` it sees to it that nothing stays on disk of
    what was overwritten.

    The columns may be new and empty: they answer with what they have, and say how fresh that is.
    """

    def __init__(
        self,
        database: Database,
        columns: EventColumns,
        *,
        handover: Handover | None = None,
        pause_seconds: float = 1.0,
        report_seconds: float = 30.0,
        rest_seconds: float = 0.5,
        tidy_seconds: float = 3600.0,
    ) -> None:
        self._database = database
        self._columns = columns
        self._handover = handover or Handover()
        self._pause_seconds = pause_seconds
        self._report_seconds = report_seconds
        self._uid = new_uid("copy")
        self._reported: dict[int, int] = {}
        self._report_again_at = 0.0
        self._rest_seconds = rest_seconds
        self._tidy_seconds = tidy_seconds
        self._tidy_again_at = time.monotonic() + tidy_seconds

    async def start(self) -> None:
        """Make a copy of before fit to be asked: it hears of what was overwritten since.

        If it knows more than the listing, which was put back to what it was or is another one,
        it begins anew.
        """
        listed = {cursor.shard: cursor.position for cursor in await self._list_cursors()}
        if any(copy.position > listed.get(copy.shard, 0) for copy in await self._columns.cursors()):
            log.warning("columns of another listing, made anew")
            await self._columns.clear()
        await self.follow_changes()

    async def run(self) -> None:
        """Follow the listing until cancelled. A failure is logged, and tried again soon."""
        while True:
            heed_cancellation()
            try:
                if time.monotonic() >= self._tidy_again_at:
                    self._tidy_again_at = time.monotonic() + self._tidy_seconds
                    await self._columns.tidy()
                copied_count = await self.copy_page()
                if copied_count >= _PAGE_EVENTS:
                    continue
                if copied_count:
                    await asyncio.sleep(self._rest_seconds)
            except Exception as error:
                log.warning("columns not kept", extra=describe_failure(error))
                await asyncio.sleep(_PAUSE_AFTER_FAILURE_SECONDS)
            await self._handover.wait(self._pause_seconds)

    async def copy_page(self) -> int:
        """Copy some events of each shard; returns how many."""
        listed = await self.follow_changes()
        known = {cursor.shard: cursor.position for cursor in await self._columns.cursors()}
        copied = [
            await self._copy(cursor, after_position=known.get(cursor.shard))
            for cursor in listed
            if cursor.position > known.get(cursor.shard, -1)
        ]
        return sum(copied)

    async def follow_changes(self) -> list[Cursor]:
        """Bring what is copied up to date with what was overwritten, and tell that it is.

        Returns how far the listing is, as it was before.
        """
        found = await self._list_cursors()
        listed = {cursor.shard: cursor for cursor in found}
        reached: dict[int, int] = {}
        for cursor in await self._columns.cursors():
            number = cursor.change_number
            goal = listed[cursor.shard].change_number if cursor.shard in listed else number
            while number < goal:
                number = await self._follow_page(cursor, number)
            reached[cursor.shard] = number
        for shard, cursor in listed.items():
            # Before the first events of a shard are copied, too: who erases waits for all copies
            # that have told of themselves, and must know of this one by then.
            reached.setdefault(shard, cursor.change_number)
        if reached != self._reported or time.monotonic() >= self._report_again_at:
            async with self._database.begin() as transaction:
                now = await database_now(transaction)
                for shard, number in sorted(reached.items()):
                    copy = Copy(self._uid, shard, number)
                    await change_repository.put_copy(transaction, copy, now)
            self._reported = reached
            self._report_again_at = time.monotonic() + self._report_seconds
        return found

    async def _list_cursors(self) -> list[Cursor]:
        async with self._database.read() as snapshot:
            live = await repository.find_live_generation(snapshot)
            return await repository.list_cursors(snapshot, live)

    async def _follow_page(self, cursor: Cursor, after: int) -> int:
        """Follow some changes after a number; returns how far that got."""
        async with self._database.read() as snapshot:
            changes = await change_repository.list_changed_ids(
                snapshot, cursor.shard, after=after, limit=_PAGE_EVENTS
            )
            events = await change_repository.get_listed(snapshot, {one for _, one in changes})
        facts = [
            fact_of(event)
            for _, event in sorted(events.items())
            if position_of(event) <= cursor.position
        ]
        reached = changes[-1][0]
        await self._columns.amend(cursor.shard, reached, facts)
        return reached

    async def _copy(self, listed: Cursor, *, after_position: int | None) -> int:
        batch = self._handover.take(listed, after_position or 0)
        if batch is not None:
            await self._columns.add(batch.cursor, batch.facts)
            return len(batch.facts)
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
            reached = Cursor(
                listed.shard, position_of(last), last.receive_time, listed.change_number
            )
        await self._columns.add(reached, [fact_of(event) for event in events])
        return len(events)
