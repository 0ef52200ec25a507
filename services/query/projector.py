"""Follows Ingest's log and brings the read models up to date, each event once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, timedelta
from typing import TypeAlias

import grpc
from prometheus_client import Counter, Gauge

from common.cancellation import heed_cancellation
from common.db import Database
from common.log import describe_failure
from services.query import figures, repository
from services.query.changes import ChangeFollower, without_carried
from services.query.freshness import Cursor, Sightings, later
from services.query.handover import Batch, Handover
from services.query.projection import Fact, LogDisorder, Projection, fold
from shoptrail.ingest.v1 import ingest_pb2, ingest_pb2_grpc
from shoptrail.ingest.v1.event_pb2 import Event

log = logging.getLogger(__name__)

_Answer: TypeAlias = ingest_pb2.ReadLogResponse

LOG_SERVICE = ingest_pb2.DESCRIPTOR.services_by_name["Ingest"].full_name
"""What the projector reads the log from."""

_LAG = Gauge("query_projector_lag_events", "Events of the log not yet projected.", ["shard"])
_EVENTS = Counter("query_projector_events", "Events projected.", ["shard"])
_STOPPED = Gauge("query_projector_stopped", "1 if the log of the shard is in disorder.", ["shard"])

_GENERATION = Gauge("query_projector_generation", "The generation of figures that answers.")

# Who comes again within a page is written once. More would cost each event hardly less.
_PAGE_EVENTS = 4000
_TURN_EVENTS = 250
_ANSWER_SECONDS = 5.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 2.0


class _Overtaken(Exception):
    """Another replica has projected these events."""


class _Replaced(Exception):
    """The generation doesn't answer any more."""


class _NextPage:
    """The page of the log that comes next: read while the one before is projected."""

    def __init__(self, read: Callable[[Cursor, timedelta], Awaitable[_Answer]]) -> None:
        self._read = read
        self._reading: asyncio.Future[_Answer] | None = None

    def begin(self, cursor: Cursor) -> None:
        """Begin to read what follows a cursor, which comes to stand there."""
        self._reading = asyncio.ensure_future(self._read(cursor, timedelta()))

    async def read(self, cursor: Cursor, wait: timedelta) -> _Answer:
        """What follows a cursor."""
        reading, self._reading = self._reading, None
        return await (reading or self._read(cursor, wait))

    async def forget(self) -> None:
        """Read nothing beforehand."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


class Projector:
    """Keeps the read models at the head of the log, a task for each generation and shard.

    What a batch of events changes is committed together with the cursor that
    says so, and only by who finds the cursor where it was when the batch was
    read. So it may be stopped anywhere, and run in several replicas at once.

    A generation of figures that is being built is brought to the head beside the one
    that answers, and then takes its place.

    While nothing happens it hears so every `longest_wait`: so old may `as_of` get, and so
    late is a new generation met.
    """

    def __init__(
        self,
        database: Database,
        ingest: ingest_pb2_grpc.IngestAsyncStub,
        *,
        sightings: Sightings,
        handover: Handover | None = None,
        longest_wait: timedelta = timedelta(seconds=2),
    ) -> None:
        self._database = database
        self._ingest = ingest
        self._sightings = sightings
        self._handover = handover or Handover()
        self._longest_wait = longest_wait
        self._cursor_counts: dict[int, int] = {}
        self._changes = ChangeFollower(database, ingest)

    async def run(self) -> None:
        """Follow the log until cancelled. A failure is logged, and tried again soon.

        A shard whose log is in disorder is given up, with a critical line in the
        log: its counts stay right, and grow old.
        """
        async with asyncio.TaskGroup() as followers:
            while True:
                heed_cancellation()
                try:
                    await self._meet_generations(followers)
                except Exception as error:
                    log.warning("generations not met", extra=_describe(error))
                await asyncio.sleep(self._longest_wait.total_seconds())

    async def _meet_generations(self, followers: asyncio.TaskGroup) -> None:
        """Follow the log for each generation that isn't followed yet."""
        if not self._cursor_counts:
            async with self._database.begin() as transaction:
                await repository.add_first_generation(transaction)
        async with self._database.read() as snapshot:
            current = await repository.list_current_generations(snapshot)
        for generation in current:
            if generation not in self._cursor_counts:
                self._cursor_counts[generation] = 0
                followers.create_task(self._follow(generation, 0, followers))

    async def _follow(self, generation: int, shard: int, followers: asyncio.TaskGroup) -> None:
        page = _NextPage(self._read_log)
        try:
            await self._follow_pages(generation, shard, page, followers)
        finally:
            await page.forget()

    async def _follow_pages(
        self, generation: int, shard: int, page: _NextPage, followers: asyncio.TaskGroup
    ) -> None:
        cursor = None
        memory = figures.Memory()
        wait = timedelta()
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            heed_cancellation()
            try:
                if cursor is None:
                    # What wasn't committed must not be taken for what there is.
                    memory = figures.Memory()
                    await page.forget()
                    cursor, wait = await self._find_cursor(generation, shard), timedelta()
                answer = await page.read(cursor, wait)
                await self._meet_shards(generation, answer.shard_count, followers)
                if answer.change_number < cursor.change_number:
                    raise LogDisorder(
                        f"change {cursor.change_number} was followed, and there is none after"
                        f" {answer.change_number}"
                    )
                if answer.change_number > cursor.change_number:
                    # What is counted must become what the log says before more is.
                    if not await self._changes.follow(shard):
                        await asyncio.sleep(_FIRST_PAUSE_SECONDS)
                    raise _Overtaken
                if answer.events and _is_far(answer.events[-1].position, answer):
                    page.begin(replace(cursor, position=answer.events[-1].position))
                cursor = await self._project(generation, answer, cursor, memory)
                wait = self._longest_wait
                pause_seconds = _FIRST_PAUSE_SECONDS
            except _Overtaken:
                self._handover.tell()
                cursor = None
            except _Replaced:
                return
            except LogDisorder as disorder:
                _STOPPED.labels(shard).set(1)
                log.critical("projection stopped", extra={"shard": shard, "why": str(disorder)})
                return
            except Exception as error:
                log.warning("projection failed", extra={"shard": shard, **_describe(error)})
                cursor = None
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)

    async def _find_cursor(self, generation: int, shard: int) -> Cursor:
        async with self._database.read() as snapshot:
            cursors = await repository.list_cursors(snapshot, generation)
        known = {cursor.shard: cursor for cursor in cursors}
        return known.get(shard) or Cursor(shard, position=0, as_of_time=None)

    async def _read_log(self, cursor: Cursor, wait: timedelta) -> ingest_pb2.ReadLogResponse:
        request = ingest_pb2.ReadLogRequest(
            shard=cursor.shard,
            after_position=cursor.position,
            page_size=_PAGE_EVENTS,
            after_change=cursor.change_number,
        )
        request.wait.FromTimedelta(wait)
        return await self._ingest.ReadLog(request, timeout=wait.total_seconds() + _ANSWER_SECONDS)

    async def _meet_shards(
        self, generation: int, shard_count: int, followers: asyncio.TaskGroup
    ) -> None:
        """Give shards that are new a cursor, without which answers would pass for fresh."""
        known_count = self._cursor_counts[generation]
        if shard_count <= known_count:
            return
        async with self._database.begin() as transaction:
            await repository.add_cursors(transaction, generation, shard_count=shard_count)
        # Shard 0 is followed from the start.
        for shard in range(max(known_count, 1), shard_count):
            followers.create_task(self._follow(generation, shard, followers))
        self._cursor_counts[generation] = max(known_count, shard_count)

    async def _project(
        self,
        generation: int,
        answer: ingest_pb2.ReadLogResponse,
        old: Cursor,
        memory: figures.Memory,
    ) -> Cursor:
        """Bring the read models up to date with the answer; returns where the cursor is then."""
        projection = await _fold_in_turns(answer.events, old)
        if not projection.facts and answer.head_position != old.position:
            raise LogDisorder(
                f"nothing follows {old.position} though the head is at {answer.head_position}"
            )
        as_of_time = answer.as_of_time.ToDatetime(tzinfo=UTC)
        if projection.position < answer.head_position:
            # What follows was stored after the last event was received.
            as_of_time = min(as_of_time, projection.facts[-1].event.receive_time)
        new = Cursor(
            old.shard,
            projection.position,
            later(old.as_of_time, as_of_time),
            old.change_number,
        )
        if projection.facts:
            state = await self._add(generation, projection, old, new, memory)
            _EVENTS.labels(old.shard).inc(len(projection.facts))
        else:
            async with self._database.read() as snapshot:
                state = await repository.get_state(snapshot, generation)
        if state == repository.LIVE:
            if projection.facts:
                self._handover.put(Batch(old.position, new, projection.facts))
            else:
                self._sightings.note(new)
            _GENERATION.set(generation)
            _LAG.labels(old.shard).set(answer.head_position - projection.position)
        elif state == repository.BUILDING:
            if not _is_far(projection.position, answer):
                await self._replace_live_by(generation)
        else:
            raise _Replaced
        return new

    async def _add(
        self,
        generation: int,
        projection: Projection,
        old: Cursor,
        new: Cursor,
        memory: figures.Memory,
    ) -> int | None:
        """Add to the read models and move the cursor; returns the generation's state."""
        async with self._database.begin() as transaction:
            state = await repository.lock_generation(transaction, generation)
            if state in (repository.LIVE, repository.BUILDING):
                if not await repository.move_cursor(transaction, generation, old, new):
                    raise _Overtaken
                facts = await without_carried(transaction, projection.facts)
                await figures.add_facts(transaction, generation, facts, memory)
                events = projection.events
                if state == repository.BUILDING:
                    # The listing, of which there is one, has those before already.
                    live = await repository.find_live_generation(transaction)
                    cursors = await repository.list_cursors(transaction, live)
                    listed = {cursor.shard: cursor.position for cursor in cursors}
                    ahead = new.position - listed.get(new.shard, 0)
                    events = events[len(events) - max(min(ahead, len(events)), 0) :]
                await repository.add_events(transaction, events)
        return state

    async def _replace_live_by(self, generation: int) -> None:
        """Let a generation answer, if it holds all that the one that answers holds."""
        async with self._database.begin() as transaction:
            replaced = await repository.replace_live_by(transaction, generation)
        if replaced:
            log.info("generation replaced", extra={"generation": generation})


def _is_far(position: int, answer: _Answer) -> bool:
    """Whether there is a whole page between a position and the head of the log."""
    return answer.head_position - position >= _PAGE_EVENTS


async def _fold_in_turns(events: Sequence[Event], after: Cursor) -> Projection:
    """As `fold`, but others have their turn in between: a page takes longer than an answer may."""
    facts: list[Fact] = []
    position = after.position
    for start in range(0, len(events), _TURN_EVENTS):
        some = events[start : start + _TURN_EVENTS]
        projection = fold(some, shard=after.shard, after_position=position)
        facts += projection.facts
        position = projection.position
        await asyncio.sleep(0)
    return Projection(position, facts)


def _describe(error: Exception) -> dict[str, str]:
    """What the log says of it: of a failed call its code alone, since there may be many."""
    if isinstance(error, grpc.aio.AioRpcError):
        return {"code": error.code().name}
    return describe_failure(error)
