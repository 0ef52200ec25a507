"""Gathers the events of all waiting requests into few calls of Ingest."""

from __future__ import annotations

import asyncio
from collections import deque
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


class Coalescer:
    """Sends submissions on at once while Ingest is idle, and together while it is busy.

    No timer: what arrives while a call is under way goes with the next.
    """

    def __init__(self, ingest: IngestAsyncStub, monotonic: Callable[[], float]) -> None:
        self._ingest = ingest
        self._monotonic = monotonic
        self._waiting: deque[_Waiting] = deque()
        self._waiting_events = 0
        self._waiting_bytes = 0
        self._senders: set[asyncio.Task[None]] = set()
        # Not the size of the set, from which a sender goes a moment after it has ended.
        self._sender_count = 0
        self._last_call_began = 0.0

    def count_waiting_events(self) -> int:
        """How many events wait for a call."""
        return self._waiting_events

    async def submit(
        self, submission: ingest_pb2.Submission, *, event_count: int, byte_count: int
    ) -> ingest_pb2.SubmissionResult:
        """What became of the submission, which has so many events and bytes of theirs.

        Raises `Overloaded` if too many events wait already; `DependencyUnavailable`
        if no call could be made within a second; `grpc.aio.AioRpcError` if the call
        failed. In the latter case some of the events may have been stored.
        """
        if self._waiting and (
            self._waiting_events + event_count > _MAX_WAITING_EVENTS
            or self._waiting_bytes + byte_count > _MAX_WAITING_BYTES
        ):
            raise Overloaded
        now = self._monotonic()
        waiting = _Waiting(
            submission,
            event_count=event_count,
            byte_count=byte_count,
            since=now,
            result=asyncio.get_running_loop().create_future(),
        )
        self._waiting.append(waiting)
        self._waiting_events += event_count
        self._waiting_bytes += byte_count
        if self._wants_sender(now):
            self._sender_count += 1
            self._last_call_began = now
            sender = asyncio.create_task(self._send_waiting())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        return await waiting.result

    def _wants_sender(self, now: float) -> bool:
        if not self._sender_count:
            return True
        return self._sender_count < _MAX_CALLS_IN_FLIGHT and (
            self._waiting_events >= _EVENTS_FOR_SECOND_CALL
            or now - self._last_call_began > _SECONDS_FOR_SECOND_CALL
        )

    async def _send_waiting(self) -> None:
        while gathered := self._gather():
            try:
                results = await self._append(gathered)
            except Exception as error:  # Whatever it is, each waiting request must hear of it.
                for waiting in gathered:
                    _settle(waiting.result, error)
            else:
                for waiting, result in zip(gathered, results, strict=True):
                    _settle(waiting.result, result)
        self._sender_count -= 1

    def _gather(self) -> list[_Waiting]:
        """The submissions of the next call, taken from those that wait; empty if none do."""
        self._last_call_began = self._monotonic()
        gathered: list[_Waiting] = []
        event_count = byte_count = 0
        patience_ended = self._last_call_began - _MAX_WAIT_SECONDS
        while self._waiting:
            waiting = self._waiting[0]
            if waiting.since < patience_ended:
                self._take_first()
                _settle(waiting.result, DependencyUnavailable())
                continue
            event_count += waiting.event_count
            byte_count += waiting.byte_count
            # What is larger than a call's limits by itself goes by itself.
            if gathered and (
                event_count > _MAX_EVENTS_PER_CALL or byte_count > _MAX_BYTES_PER_CALL
            ):
                break
            self._take_first()
            gathered.append(waiting)
        return gathered

    def _take_first(self) -> None:
        waiting = self._waiting.popleft()
        self._waiting_events -= waiting.event_count
        self._waiting_bytes -= waiting.byte_count

    async def _append(self, gathered: list[_Waiting]) -> list[ingest_pb2.SubmissionResult]:
        request = ingest_pb2.AppendRequest(submissions=[waiting.submission for waiting in gathered])
        response = await self._ingest.Append(request, timeout=_APPEND_SECONDS)
        results = list(response.results)
        if [len(result.verdicts) for result in results] != [
            waiting.event_count for waiting in gathered
        ]:
            raise InternalError
        return results


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
