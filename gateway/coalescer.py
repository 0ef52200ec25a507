"""Gathers the events of all waiting requests into few calls of Ingest."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.errors import DependencyUnavailable, InternalError, Overloaded
from shoptrail.ingest.v1 import ingest_pb2

if TYPE_CHECKING:  # The generated stubs have it for the type checker only.
    from shoptrail.ingest.v1.ingest_pb2_grpc import IngestAsyncStub

_MAX_CALLS_IN_FLIGHT = 2
# A second call is made beside the first if so many events wait, or the first is slow:
# two half-full calls cost more than one full one.
_EVENTS_FOR_SECOND_CALL = 100
_SECONDS_FOR_SECOND_CALL = 0.05
# Senders that were answered together come again together, but not in the same moment. Their call
# is held back for so much of the time that the last one took, or until as many events wait: else
# every other call would be of the first one's event alone.
_SHARE_HELD_BACK = 0.5
_LONGEST_HELD_BACK_SECONDS = 0.01
_MAX_EVENTS_PER_CALL = 500
_MAX_BYTES_PER_CALL = 4 * 1024 * 1024
_MAX_WAITING_EVENTS = 20_000
_MAX_WAITING_BYTES = 64 * 1024 * 1024
# Of the three seconds that a request may take, Ingest has two.
_MAX_WAIT_SECONDS = 1.0
_APPEND_SECONDS = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    submission: ingest_pb2.Submission
    event_count: int
    byte_count: int
    since: float
    result: asyncio.Future[ingest_pb2.SubmissionResult]


@dataclass(slots=True)
class _Queue:
    """What waits of a store."""

    waiting: deque[_Waiting]
    event_count: int = 0
    byte_count: int = 0


class Coalescer:
    """Sends submissions on at once while Ingest is idle, and together while it is busy.

    What arrives while a call is under way goes with the next. Stores take
    turns, a submission each, and a store may fill no more of the room for those that
    wait than it leaves free: one that floods waits for itself.
    """

    def __init__(self, ingest: IngestAsyncStub, monotonic: Callable[[], float]) -> None:
        self._ingest = ingest
        self._monotonic = monotonic
        # By store, the one whose turn it is first; none that is empty.
        self._queues: OrderedDict[str, _Queue] = OrderedDict()
        self._waiting_events = 0
        self._waiting_bytes = 0
        self._senders: set[asyncio.Task[None]] = set()
        # Not the size of the set, from which a sender goes a moment after it has ended.
        self._sender_count = 0
        self._last_call_began = 0.0
        # What a sender waits for that holds its call back, and how many events that takes.
        self._returned: asyncio.Future[None] | None = None
        self._returned_goal = 0

    def count_waiting_events(self) -> int:
        """How many events wait for a call."""
        return self._waiting_events

    def require_room(self, store_uid: str) -> None:
        """Raise `Overloaded` if not one event more of the store may wait.

        For those who would have to work before they know how many there are.
        """
        queue = self._queues.get(store_uid)
        if queue is not None and (
            queue.event_count >= _MAX_WAITING_EVENTS - self._waiting_events
            or queue.byte_count >= _MAX_WAITING_BYTES - self._waiting_bytes
        ):
            raise Overloaded

    async def submit(
        self, submission: ingest_pb2.Submission, *, event_count: int, byte_count: int
    ) -> ingest_pb2.SubmissionResult:
        """What became of the submission, which has so many events and bytes of theirs.

        Raises `Overloaded` if too many events of its store wait already;
        `DependencyUnavailable` if no call could be made within a second;
        `grpc.aio.AioRpcError` if the call failed. In the latter case some of the events
        may have been stored.
        """
        queue = self._queue_for(submission.store_uid, event_count, byte_count)
        now = self._monotonic()
        waiting = _Waiting(
            submission,
            event_count=event_count,
            byte_count=byte_count,
            since=now,
            result=asyncio.get_running_loop().create_future(),
        )
        queue.waiting.append(waiting)
        queue.event_count += event_count
        queue.byte_count += byte_count
        self._waiting_events += event_count
        self._waiting_bytes += byte_count
        if self._returned is not None and self._waiting_events >= self._returned_goal:
            _wake(self._returned)
        if self._wants_sender(now):
            self._add_sender(now)
        return await waiting.result

    def _add_sender(self, now: float) -> None:
        self._sender_count += 1
        self._last_call_began = now
        sender = asyncio.create_task(self._send_waiting())
        self._senders.add(sender)
        sender.add_done_callback(self._senders.discard)

    def _queue_for(self, store_uid: str, event_count: int, byte_count: int) -> _Queue:
        """The store's queue, if it has room for so much more; else raises `Overloaded`."""
        queue = self._queues.get(store_uid)
        free_events = _MAX_WAITING_EVENTS - self._waiting_events - event_count
        free_bytes = _MAX_WAITING_BYTES - self._waiting_bytes - byte_count
        if queue is None:
            # What comes while nobody waits is taken, however large it is.
            if self._queues and (free_events < 0 or free_bytes < 0):
                raise Overloaded
            queue = self._queues[store_uid] = _Queue(deque())
        elif queue.event_count > free_events or queue.byte_count > free_bytes:
            raise Overloaded
        return queue

    def _wants_sender(self, now: float) -> bool:
        if not self._sender_count:
            return True
        return self._sender_count < _MAX_CALLS_IN_FLIGHT and (
            self._waiting_events >= _EVENTS_FOR_SECOND_CALL
            or now - self._last_call_began > _SECONDS_FOR_SECOND_CALL
        )

    async def _send_waiting(self) -> None:
        while gathered := self._gather():
            began = self._monotonic()
            if self._wants_sender(began):
                self._add_sender(began)
            try:
                results = await self._append(gathered)
            except Exception as error:  # Whatever it is, each waiting request must hear of it.
                for waiting in gathered:
                    _settle(waiting.result, error)
            else:
                for waiting, result in zip(gathered, results, strict=True):
                    _settle(waiting.result, result)
                await self._wait_for_return(gathered, took_seconds=self._monotonic() - began)
        self._sender_count -= 1

    async def _wait_for_return(self, answered: list[_Waiting], *, took_seconds: float) -> None:
        """Wait until as many events wait as were just answered, for a share of what that took."""
        if len(answered) == 1 or self._returned is not None:
            return  # Nobody else is on the way, or they are waited for already.
        goal = min(sum(each.event_count for each in answered), _EVENTS_FOR_SECOND_CALL)
        if self._waiting_events >= goal:
            return
        seconds = min(_SHARE_HELD_BACK * took_seconds, _LONGEST_HELD_BACK_SECONDS)
        # What is held back counts as begun, for who would send a second call beside it.
        self._last_call_began = self._monotonic()
        loop = asyncio.get_running_loop()
        self._returned, self._returned_goal = loop.create_future(), goal
        timer = loop.call_later(seconds, _wake, self._returned)
        await self._returned
        timer.cancel()
        self._returned = None

    def _gather(self) -> list[_Waiting]:
        """The submissions of the next call, taken from those that wait; empty if none do."""
        self._last_call_began = self._monotonic()
        gathered: list[_Waiting] = []
        event_count = byte_count = 0
        most_events = _MAX_EVENTS_PER_CALL
        if self._sender_count == 1:
            # Half of many, so that Ingest has work while we make the other half's call.
            half = max(self._waiting_events // 2, _EVENTS_FOR_SECOND_CALL)
            most_events = min(most_events, half)
        patience_ended = self._last_call_began - _MAX_WAIT_SECONDS
        while self._queues:
            store_uid, queue = next(iter(self._queues.items()))
            waiting = queue.waiting[0]
            if waiting.since < patience_ended:
                self._take_first(store_uid, queue)
                _settle(waiting.result, DependencyUnavailable())
                continue
            event_count += waiting.event_count
            byte_count += waiting.byte_count
            # What is larger than a call's limits by itself goes by itself.
            if gathered and (event_count > most_events or byte_count > _MAX_BYTES_PER_CALL):
                break
            self._take_first(store_uid, queue)
            gathered.append(waiting)
        return gathered

    def _take_first(self, store_uid: str, queue: _Queue) -> None:
        """Take the first of the queue, which is then the last in turn."""
        waiting = queue.waiting.popleft()
        queue.event_count -= waiting.event_count
        queue.byte_count -= waiting.byte_count
        self._waiting_events -= waiting.event_count
        self._waiting_bytes -= waiting.byte_count
        if queue.waiting:
            self._queues.move_to_end(store_uid)
        else:
            del self._queues[store_uid]

    async def _append(self, gathered: list[_Waiting]) -> list[ingest_pb2.SubmissionResult]:
        request = ingest_pb2.AppendRequest(submissions=[waiting.submission for waiting in gathered])
        response = await self._ingest.Append(request, timeout=_APPEND_SECONDS)
        results = list(response.results)
        if [len(result.verdicts) for result in results] != [
            waiting.event_count for waiting in gathered
        ]:
            raise InternalError
        return results


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _settle(
    future: asyncio.Future[ingest_pb2.SubmissionResult],
    outcome: ingest_pb2.SubmissionResult | Exception,
) -> None:
    if future.done():  # Its request was given up.
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
