"""Follows what is overwritten in the log: in the figures of all generations, and in the listing."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from common.db import Database
from services.query import change_repository, repository
from services.query.amendments import Amendment, amend
from services.query.projection import (
    RecordedEvent,
    fact_of,
    position_of,
    recorded_event,
)
from shoptrail.ingest.v1 import ingest_pb2, ingest_pb2_grpc

_PAGE_CHANGES = 500
_ANSWER_SECONDS = 5.0


class ChangeFollower:
    """Brings figures and listing up to date with changes, a page in a transaction.

    All generations go by the same change of a shard at any time. A generation counts further
    events only as that change left them, so it is always known what has been counted.
    """

    def __init__(self, database: Database, ingest: ingest_pb2_grpc.IngestAsyncStub) -> None:
        self._database = database
        self._ingest = ingest

    async def follow(self, shard: int) -> bool:
        """Follow a page of the shard's changes; returns whether there were any to follow."""
        async with self._database.read() as snapshot:
            live = await repository.find_live_generation(snapshot)
            cursors = await repository.list_cursors(snapshot, live)
        known = next((one for one in cursors if one.shard == shard), None)
        if known is None:
            return False
        answer = await self._ingest.ReadChanges(
            ingest_pb2.ReadChangesRequest(
                shard=shard, after_number=known.change_number, page_size=_PAGE_CHANGES
            ),
            timeout=_ANSWER_SECONDS,
        )
        if not answer.changes:
            return False
        async with self._database.begin() as transaction:
            # In this order by everyone: the live one first, which each new cursor locks too.
            current = [live]
            current += [
                one for one in await repository.list_current_generations(transaction) if one != live
            ]
            positions: dict[int, int] = {}
            for generation in current:
                state = await repository.lock_generation(transaction, generation)
                if state not in (repository.LIVE, repository.BUILDING):
                    return False  # They have just been swapped: what was read may not hold.
                for cursor in await repository.list_cursors(transaction, generation):
                    if cursor.shard == shard:
                        if cursor.change_number != known.change_number:
                            return False  # Another replica was quicker.
                        positions[generation] = cursor.position
            events = {
                one.event.position: recorded_event(one.event, shard=shard) for one in answer.changes
            }
            await self._overwrite(transaction, events, positions)
            await change_repository.add_changes(
                transaction,
                shard,
                {one.number: events[one.event.position].id for one in answer.changes},
            )
            await change_repository.set_change_number(
                transaction,
                shard,
                generations=positions,
                number=answer.changes[-1].number,
            )
        return True

    async def _overwrite(
        self,
        transaction: AsyncConnection,
        events: dict[int, RecordedEvent],
        positions: dict[int, int],
    ) -> None:
        listed = await change_repository.get_listed(
            transaction, [event.id for event in events.values()]
        )
        changed = [event for event in events.values() if event.id in listed]
        changed.sort(key=lambda event: event.id)
        await change_repository.overwrite_listed(transaction, changed)
        amendments = [
            Amendment(fact_of(listed[event.id]), fact_of(event))
            for event in changed
            if listed[event.id] != event
        ]
        for generation, position in sorted(positions.items()):
            counted = [one for one in amendments if position_of(one.new.event) <= position]
            if counted:
                await amend(transaction, generation, counted)
