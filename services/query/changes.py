"""Follows what is overwritten in the log: in the figures of all generations, and in the listing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from common.db import Database, note_untidy
from services.query import change_repository, figures, repository
from services.query.amendments import Amendment, amend, rename_orders
from services.query.payload import text_in
from services.query.projection import (
    Fact,
    RecordedEvent,
    fact_of,
    is_expired,
    position_of,
    recorded_event,
)
from shoptrail.ingest.v1 import event_pb2, ingest_pb2, ingest_pb2_grpc

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
        """Follow the shard's changes until a page isn't full; returns whether any were followed."""
        async with self._database.read() as snapshot:
            live = await repository.find_live_generation(snapshot)
            cursors = await repository.list_cursors(snapshot, live)
        numbers = [one.change_number for one in cursors if one.shard == shard]
        if not numbers:
            return False
        (number,) = numbers
        followed = False
        async with aclosing(self._pages(shard, after=number)) as pages:
            async for changes in pages:
                if not await self._follow_page(shard, live, changes, after=number):
                    break
                followed = True
                number = changes[-1].number
        return followed

    async def _pages(
        self, shard: int, *, after: int
    ) -> AsyncGenerator[Sequence[event_pb2.ChangedEvent], None]:
        """Changes after a number, each page read while the one before is followed."""
        reading = asyncio.create_task(self._read(shard, after=after))
        try:
            while True:
                changes = (await reading).changes
                if len(changes) == _PAGE_CHANGES:
                    reading = asyncio.create_task(self._read(shard, after=changes[-1].number))
                if changes:
                    yield changes
                if len(changes) < _PAGE_CHANGES:
                    return
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, shard: int, *, after: int) -> ingest_pb2.ReadChangesResponse:
        return await self._ingest.ReadChanges(
            ingest_pb2.ReadChangesRequest(shard=shard, after_number=after, page_size=_PAGE_CHANGES),
            timeout=_ANSWER_SECONDS,
        )

    async def _follow_page(
        self, shard: int, live: int, changes: Sequence[event_pb2.ChangedEvent], *, after: int
    ) -> bool:
        """Follow changes that come after a number; returns whether they still did."""
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
                        if cursor.change_number != after:
                            return False  # Another replica was quicker.
                        positions[generation] = cursor.position
            events = {one.event.position: recorded_event(one.event, shard=shard) for one in changes}
            await self._overwrite(transaction, events, positions)
            await change_repository.add_changes(
                transaction,
                shard,
                {one.number: events[one.event.position].id for one in changes},
            )
            await change_repository.set_change_number(
                transaction,
                shard,
                generations=positions,
                number=changes[-1].number,
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
        amendments: list[Amendment] = []
        expired: list[Fact] = []
        for event in changed:
            old = listed[event.id]
            if old == event:
                continue
            new = fact_of(event)
            if is_expired(event) and not is_expired(old):
                # Its figures stay as they are, but for the id of an order.
                new = fact_of(_with_order_of(old, new))
                expired.append(new)
            amendments.append(Amendment(fact_of(old), new))
        for generation, position in sorted(positions.items()):
            counted = [one for one in amendments if position_of(one.new.event) <= position]
            if counted:
                await amend(transaction, generation, counted)
            # It won't count what is carried when it comes there.
            early = [fact for fact in expired if position_of(fact.event) > position]
            if early:
                await figures.add_facts(transaction, generation, early)
        if amendments:
            await note_untidy(transaction)
            await rename_orders(transaction, change_repository.CARRIED, amendments)
        if expired:
            await figures.add_facts(transaction, change_repository.CARRIED, expired)
            await change_repository.add_carried(transaction, [one.event.id for one in expired])


async def without_carried(transaction: AsyncConnection, facts: Sequence[Fact]) -> list[Fact]:
    """The facts less what is left of events whose figures are carried over."""
    expired = [fact.event.id for fact in facts if is_expired(fact.event)]
    if not expired:
        return list(facts)
    carried = await change_repository.find_carried(transaction, expired)
    return [fact for fact in facts if fact.event.id not in carried]


def _with_order_of(old: RecordedEvent, new: Fact) -> RecordedEvent:
    """The event as it was, with the order and the refund that the new one names."""
    given = {
        name: text
        for name in ("order_id", "refund_id")
        if (text := text_in(new.payload.properties, name))
    }
    if not given:
        return old
    members = msgspec.json.decode(old.payload, type=dict[str, msgspec.Raw])
    properties = msgspec.json.decode(members["properties"], type=dict[str, msgspec.Raw])
    for name, text in given.items():
        properties[name] = msgspec.Raw(msgspec.json.encode(text))
    members["properties"] = msgspec.Raw(msgspec.json.encode(properties))
    return msgspec.structs.replace(old, payload=msgspec.json.encode(members))
