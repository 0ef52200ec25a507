"""Serves `shoptrail.ingest.v1.Ingest`: appends to the log, and reads from it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from common.db import Database
from common.errors import InvalidRequest
from common.interceptors.wrap import Context
from common.page_token import read_page_size
from common.uid import is_uid, new_uid, parse_uid
from services.ingest import repository
from services.ingest.news import News
from services.ingest.repository import LoggedEvent, NewEvent
from services.ingest.verdicts import Arrival, EventType, Reading, Rejection, read_event
from shoptrail.ingest.v1 import event_pb2, ingest_pb2, ingest_pb2_grpc

SERVICE = ingest_pb2.DESCRIPTOR.services_by_name["Ingest"].full_name

_EVENTS_A_CALL = 10_000
_PAGE_BYTES = 4 * 1024 * 1024
_CHUNK_ROWS = 500
_LONGEST_WAIT_SECONDS = 20.0
# How soon a reader learns of what another replica appended.
_LOOK_AGAIN_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An event that will be stored unless it is known, and where its verdict goes."""

    event: NewEvent
    result: ingest_pb2.SubmissionResult
    index: int


class IngestServicer(ingest_pb2_grpc.IngestServicer):
    """Gives each event its verdict, stores those that earn it, and lists them by position."""

    def __init__(
        self, database: Database, *, now: Callable[[], datetime], shard_count: int, event_bytes: int
    ) -> None:
        self._database = database
        self._now = now
        self._shard_count = shard_count
        self._event_bytes = event_bytes
        self._news = News()

    async def Append(
        self, request: ingest_pb2.AppendRequest, context: Context
    ) -> ingest_pb2.AppendResponse:
        arrivals = _read_arrivals(request)
        response = ingest_pb2.AppendResponse()
        # By shard, and by what must be unique: the first of a kind is the candidate, and
        # those after it are duplicates.
        shards: dict[int, dict[tuple[str, bytes], _Candidate]] = defaultdict(dict)
        for submission, arrival in zip(request.submissions, arrivals, strict=True):
            result = response.results.add()
            shard = shards[self._shard_of(submission.store_uid)]
            for index, payload in enumerate(submission.payloads):
                try:
                    reading = read_event(payload, arrival, limit_bytes=self._event_bytes)
                except Rejection as fault:
                    result.verdicts.append(event_pb2.VERDICT_REJECTED)
                    result.faults.add(
                        index=index, code=fault.code, path=fault.path, message=str(fault)
                    )
                    continue
                result.verdicts.append(event_pb2.VERDICT_DUPLICATE)
                event = _as_new_event(reading, submission.store_uid, arrival, payload)
                shard.setdefault(event.key, _Candidate(event, result, index))

        outcomes = await asyncio.gather(
            *(self._store(shard, list(unique.values())) for shard, unique in shards.items()),
            return_exceptions=True,
        )
        for failure in filter(None, outcomes):
            raise failure
        return response

    async def ReadLog(
        self, request: ingest_pb2.ReadLogRequest, context: Context
    ) -> ingest_pb2.ReadLogResponse:
        self._check_place(request)
        page_size = read_page_size(request.page_size, default=500, largest=5000)
        until = time.monotonic() + min(request.wait.seconds, _LONGEST_WAIT_SECONDS)
        while True:
            as_of_time = self._now()
            async with self._database.read() as snapshot:
                head = await repository.get_head(snapshot, request.shard)
            left = until - time.monotonic()
            if head > request.after_position or left <= 0:
                break
            await self._news.wait(request.shard, seconds=min(left, _LOOK_AGAIN_SECONDS))

        return ingest_pb2.ReadLogResponse(
            events=await self._read_page(request, head=head, page_size=page_size),
            head_position=head,
            as_of_time=_as_timestamp(as_of_time),
            shard_count=self._shard_count,
        )

    async def _store(self, shard: int, candidates: Sequence[_Candidate]) -> None:
        """Store what the log doesn't have yet, and say so in the verdicts once it is committed."""
        if not candidates:
            return
        async with self._database.begin() as transaction:
            head = await repository.lock_head(transaction, shard)
            keys = [candidate.event.key for candidate in candidates]
            known = await repository.find_known(transaction, keys)
            accepted = [candidate for candidate in candidates if candidate.event.key not in known]
            new = [candidate.event for candidate in accepted]
            await repository.add_events(transaction, shard, head=head, new=new)
        for candidate in accepted:
            candidate.result.verdicts[candidate.index] = event_pb2.VERDICT_ACCEPTED
        if accepted:
            self._news.tell(shard)

    async def _read_page(
        self, request: ingest_pb2.ReadLogRequest, *, head: int, page_size: int
    ) -> list[event_pb2.Event]:
        """The events after the request's position, as many as fit a page."""
        page: list[event_pb2.Event] = []
        size = 0
        after = request.after_position
        async with self._database.read() as snapshot:
            while after < head and len(page) < page_size and size < _PAGE_BYTES:
                limit = min(_CHUNK_ROWS, page_size - len(page), head - after)
                chunk = await repository.list_events(
                    snapshot, request.shard, after=after, limit=limit
                )
                if not chunk:
                    break
                for event in chunk:
                    size += len(event.payload)
                    if page and size > _PAGE_BYTES:
                        break
                    page.append(_as_message(event))
                after = chunk[-1].position
        return page

    def _check_place(self, request: ingest_pb2.ReadLogRequest) -> None:
        violations = {}
        if not 0 <= request.shard < self._shard_count:
            violations["shard"] = f"must be from 0 to {self._shard_count - 1}"
        if request.after_position < 0:
            violations["after_position"] = "must not be negative"
        if violations:
            raise InvalidRequest(violations)

    def _shard_of(self, store_uid: str) -> int:
        digest = hashlib.blake2b(parse_uid("sto", store_uid), digest_size=8).digest()
        return int.from_bytes(digest) % self._shard_count


def _read_arrivals(request: ingest_pb2.AppendRequest) -> list[Arrival]:
    """What is known of each submission; raises `InvalidRequest` naming everything wrong at once."""
    violations: dict[str, str] = {}
    arrivals = []
    for number, submission in enumerate(request.submissions):
        path = f"submissions[{number}]"
        if not is_uid("sto", submission.store_uid):
            violations[f"{path}.store_uid"] = "is not the uid of a store"
        receive_time = _read_time(submission, "receive_time", path, violations)
        if receive_time is None:
            violations.setdefault(f"{path}.receive_time", "is missing")
            continue
        arrivals.append(
            Arrival(
                receive_time=receive_time,
                sent_time=_read_time(submission, "sent_time", path, violations),
                default_type=_read_type(submission, path, violations),
            )
        )
    if sum(len(submission.payloads) for submission in request.submissions) > _EVENTS_A_CALL:
        violations["submissions"] = f"may hold {_EVENTS_A_CALL} events in all"
    if violations:
        raise InvalidRequest(violations)
    return arrivals


def _read_time(
    submission: ingest_pb2.Submission, field: str, path: str, violations: dict[str, str]
) -> datetime | None:
    if not submission.HasField(field):  # type: ignore[arg-type]  # a name of a field
        return None
    try:
        time: datetime = getattr(submission, field).ToDatetime(tzinfo=UTC)
    except ValueError:
        violations[f"{path}.{field}"] = "is not a time"
        return None
    return time


def _read_type(
    submission: ingest_pb2.Submission, path: str, violations: dict[str, str]
) -> EventType | None:
    if submission.default_type == event_pb2.EVENT_TYPE_UNSPECIFIED:
        return None
    try:
        return EventType(submission.default_type)
    except ValueError:
        violations[f"{path}.default_type"] = "is not a type of events"
        return None


def _as_new_event(reading: Reading, store_uid: str, arrival: Arrival, payload: bytes) -> NewEvent:
    uid = new_uid("evt")
    message_id = reading.message_id or uid
    return NewEvent(
        uid=uid,
        store_uid=store_uid,
        message_key=hashlib.blake2b(message_id.encode(), digest_size=16).digest(),
        message_id=message_id,
        type=reading.type,
        name=reading.name,
        user_id=reading.user_id,
        anonymous_id=reading.anonymous_id,
        occur_time=reading.occur_time,
        receive_time=arrival.receive_time,
        payload=payload,
    )


def _as_message(event: LoggedEvent) -> event_pb2.Event:
    return event_pb2.Event(
        uid=event.uid,
        store_uid=event.store_uid,
        message_id=event.message_id,
        type=event_pb2.EventType.Value(f"EVENT_TYPE_{EventType(event.type).name}"),
        name=event.name,
        user_id=event.user_id,
        anonymous_id=event.anonymous_id,
        occur_time=_as_timestamp(event.occur_time),
        receive_time=_as_timestamp(event.receive_time),
        payload=event.payload,
        position=event.position,
    )


def _as_timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message
