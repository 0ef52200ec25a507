"""Appends to a shard of the log, and to a journal while the log is out of reach."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import msgspec
from prometheus_client import Counter, Gauge
from sqlalchemy.exc import DataError, IntegrityError

from common.cancellation import heed_cancellation
from common.errors import DependencyUnavailable
from common.log import describe_failure
from services.ingest.append import NewEvent
from services.ingest.journal import HEAD_BYTES, Entry, Journal
from services.ingest.log_writer import Delivery, Kept, LogWriter, Outcome
from services.ingest.reach import LogOutOfReach, Witness, is_out_of_reach
from services.ingest.repository import RejectedEvent
from services.ingest.verdicts import Verdict

log = logging.getLogger(__name__)

# As many as a transaction of the log takes at most, give or take a delivery.
_RECORDS_A_TRANSACTION = 500
_BYTES_A_TRANSACTION = 2 * 1024 * 1024
_DRAIN_SECONDS = 10.0
_LOOK_AGAIN_SECONDS = 0.5
# How long senders may be kept waiting for the last records to be drained, and how often.
_HOLD_SECONDS = 0.5
_HOLD_AGAIN_SECONDS = 5.0

_BYTES = Gauge("ingest_journal_bytes", "What the journals take of the disk.", ["shard"])
_OLDEST = Gauge(
    "ingest_journal_oldest_seconds",
    "How long the oldest event in the journal has waited for the database.",
    ["shard"],
)
_AWAY = Gauge("ingest_log_out_of_reach", "Whether events go to the journal.", ["shard"])
_EVENTS = Counter(
    "ingest_journal_events", "Events that were kept, drained or refused.", ["shard", "outcome"]
)
_ASIDE = Counter(
    "ingest_journal_set_aside", "Damaged places of journals, set aside to look at.", ["shard"]
)
_MISSING = Counter("ingest_journal_missing", "Records that journals have lost.", ["shard"])

_T = TypeVar("_T")


class _Body(msgspec.Struct, omit_defaults=True):
    """A delivery, as a record holds it. Fields may be added, with defaults."""

    events: list[NewEvent]
    rejected: list[RejectedEvent]
    witness: Witness | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Body)


class Room:
    """How much of the disk the journals of a process may take together."""

    def __init__(self, byte_count: int) -> None:
        self._left = byte_count

    def take(self, byte_count: int) -> bool:
        """Claim so much of it; False, and nothing claimed, if there isn't."""
        if byte_count > self._left:
            return False
        self._left -= byte_count
        return True

    def give(self, byte_count: int) -> None:
        """Give some of it back, or, if it is negative, take it anyway."""
        self._left += byte_count


@dataclass(frozen=True, slots=True, eq=False)
class _Queued:
    body: bytes
    event_count: int
    kept: asyncio.Future[bool]
    """False if it is to go to the log after all."""


class JournaledWriter:
    """Appends deliveries to the log, and to the journal when the log can't be reached.

    From then on until the journal is empty again, all go to the journal, and from there to
    the log, so that their order is kept. No call waits for the log meanwhile, but for the
    moment in which the last records are drained.
    """

    def __init__(
        self,
        log_writer: LogWriter,
        journal: Journal,
        *,
        room: Room,
        microseconds: Callable[[], int],
    ) -> None:
        """Must be made inside the running loop: it drains what the journal holds at once.

        `microseconds` is the time, since 1970.
        """
        self._log_writer = log_writer
        self._journal = journal
        self._room = room
        self._microseconds = microseconds
        self._shard = str(log_writer.shard)
        # Files are written and read there, one thing at a time.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"journal-{self._shard}")
        self._queue: deque[_Queued] = deque()
        self._flushing: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._tidying: asyncio.Task[None] | None = None
        self._holding = False
        self._reported = (0, 0)
        room.give(-journal.byte_count)
        self._report()
        _AWAY.labels(self._shard).set(0)
        if not journal.is_empty:
            self._go_away()

    @property
    def away(self) -> bool:
        """Whether deliveries go to the journal now."""
        return self._draining is not None

    async def append(self, delivery: Delivery) -> Outcome:
        """Keep the delivery; says what became of each of its events.

        What went to the journal is said to be accepted, or rejected: whether it is a
        duplicate shows once the log is back. Raises `DependencyUnavailable` if the journal
        is full or can't be written, and what the log's writer raises.
        """
        while True:
            witness = None
            if not self.away:
                try:
                    return await self._log_writer.append(delivery)
                except LogOutOfReach as failure:
                    self._go_away()
                    witness = failure.witness
            if await self._keep(delivery, witness):
                return _outcome_of(delivery)

    async def close(self) -> None:
        """Stop draining. What the journal holds, the next start drains."""
        for task in (self._draining, self._tidying):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        await self._in_thread(self._journal.close)
        self._thread.shutdown()

    def _go_away(self) -> None:
        if self._draining is None:
            log.warning("events go to the journal", extra={"shard": self._shard})
            _AWAY.labels(self._shard).set(1)
            self._draining = asyncio.create_task(self._drain())
            self._log_writer.give_up_waiting()

    async def _keep(self, delivery: Delivery, witness: Witness | None) -> bool:
        """Put the delivery on the disk; False if it is to go to the log after all."""
        body = _encoder.encode(_Body(delivery.events, delivery.rejected, witness))
        event_count = len(delivery.events) + len(delivery.rejected)
        if not self._room.take(len(body) + HEAD_BYTES):
            _EVENTS.labels(self._shard, "refused").inc(event_count)
            raise DependencyUnavailable
        queued = _Queued(body, event_count, asyncio.get_running_loop().create_future())
        self._queue.append(queued)
        self._flush()
        return await queued.kept

    def _flush(self) -> None:
        if self._queue and self._flushing is None and not self._holding:
            self._flushing = asyncio.create_task(self._flush_queue())

    async def _flush_queue(self) -> None:
        """Write what waits, all of it with one sync; what comes meanwhile goes with the next."""
        try:
            while self._queue and not self._holding:
                gathered = list(self._queue)
                self._queue.clear()
                write = partial(
                    self._journal.append,
                    [queued.body for queued in gathered],
                    microseconds=self._microseconds(),
                )
                try:
                    await self._in_thread(write)
                except OSError as error:
                    log.exception("journal not written", extra={"shard": self._shard})
                    self._fail(gathered, error)
                else:
                    for queued in gathered:
                        _EVENTS.labels(self._shard, "kept").inc(queued.event_count)
                        if not queued.kept.done():  # Its call may have been given up.
                            queued.kept.set_result(True)
                self._report()
        finally:
            self._flushing = None

    def _fail(self, gathered: Sequence[_Queued], error: OSError) -> None:
        for queued in gathered:
            self._room.give(len(queued.body) + HEAD_BYTES)
            _EVENTS.labels(self._shard, "refused").inc(queued.event_count)
            if not queued.kept.done():
                failure = DependencyUnavailable()
                failure.__cause__ = error
                queued.kept.set_exception(failure)

    async def _drain(self) -> None:
        """Move all records to the log, as soon as it can be reached; then let events go there."""
        uids = set()
        entries: Sequence[Entry] = ()
        most_records = _RECORDS_A_TRANSACTION
        reached = False
        hold_again_at, hold_again_seconds = 0.0, _HOLD_AGAIN_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            try:
                entries = await self._read(most_records)
                if not entries and self._flushing is not None:
                    await asyncio.wait([self._flushing])
                    continue
                if not entries:
                    break
                uids.add(self._journal.uid)
                is_last = entries[-1].sequence == self._journal.last_sequence
                self._holding = is_last and reached and loop.time() >= hold_again_at
                async with asyncio.timeout(_HOLD_SECONDS if self._holding else _DRAIN_SECONDS):
                    await self._put(self._journal.uid, entries)
                await self._forget(entries[-1])
                reached, most_records = True, _RECORDS_A_TRANSACTION
            except Exception as error:  # Whatever it is, what was accepted must not be lost.
                heed_cancellation()
                if self._holding:
                    hold_again_at = loop.time() + hold_again_seconds
                    hold_again_seconds *= 2
                    self._holding = False
                    self._flush()
                else:
                    reached = False
                if not is_out_of_reach(error):
                    log.error(
                        "journal not drained",
                        extra={"shard": self._shard, **describe_failure(error)},
                    )
                if isinstance(error, DataError | IntegrityError | msgspec.MsgspecError):
                    if len(entries) == 1:
                        await self._set_aside(entries[0])
                    most_records = 1
                    continue
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        # From here to the end of the loop nothing is awaited: no event can slip in between.
        self._draining = None
        self._holding = False
        _AWAY.labels(self._shard).set(0)
        log.warning("events go to the log again", extra={"shard": self._shard})
        while self._queue:
            queued = self._queue.popleft()
            self._room.give(len(queued.body) + HEAD_BYTES)
            if not queued.kept.done():
                queued.kept.set_result(False)
        self._tidying = asyncio.create_task(self._tidy(uids))

    async def _read(self, most_records: int) -> list[Entry]:
        """The records that are to go to the log next."""

        def read() -> list[Entry]:
            return self._journal.read(most_records=most_records, most_bytes=_BYTES_A_TRANSACTION)

        entries = await self._in_thread(read)
        self._report()
        return entries

    async def _put(self, uid: bytes, entries: Sequence[Entry]) -> None:
        """Move these records to the log."""
        kept = []
        for entry in entries:
            body = _decoder.decode(entry.body)
            delivery = Delivery(body.events, body.rejected)
            kept.append(Kept(entry.sequence, delivery, body.witness))
        await self._log_writer.drain(uid, kept)
        event_count = sum(len(each.delivery.events) + len(each.delivery.rejected) for each in kept)
        _EVENTS.labels(self._shard, "drained").inc(event_count)

    async def _tidy(self, uids: Collection[bytes]) -> None:
        for uid in uids:
            try:
                async with asyncio.timeout(_DRAIN_SECONDS):
                    await self._log_writer.forget_journal(uid)
            except Exception as error:  # A row too many does no harm.
                heed_cancellation()
                log.warning("journal not forgotten", extra=describe_failure(error))

    async def _set_aside(self, entry: Entry) -> None:
        await self._in_thread(partial(self._journal.set_aside, entry))
        await self._forget(entry)

    async def _forget(self, last: Entry) -> None:
        def forget() -> int:
            before = self._journal.byte_count
            self._journal.forget(last)
            return before - self._journal.byte_count

        self._room.give(await self._in_thread(forget))
        self._report()

    def _report(self) -> None:
        """Tell how the journal is, and what was found broken in it."""
        _BYTES.labels(self._shard).set(self._journal.byte_count)
        oldest = self._journal.oldest_microseconds
        age = (self._microseconds() - oldest) / 1e6 if oldest is not None else 0
        _OLDEST.labels(self._shard).set(max(0, age))
        aside, missing = self._journal.aside_count, self._journal.missing_count
        if (aside, missing) != self._reported:
            log.error(
                "journal damaged",
                extra={"shard": self._shard, "set_aside": aside, "missing_records": missing},
            )
            _ASIDE.labels(self._shard).inc(aside - self._reported[0])
            _MISSING.labels(self._shard).inc(missing - self._reported[1])
            self._reported = (aside, missing)

    def _in_thread(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)


def _outcome_of(delivery: Delivery) -> Outcome:
    return Outcome(
        [Verdict.ACCEPTED] * len(delivery.events), [Verdict.REJECTED] * len(delivery.rejected)
    )
