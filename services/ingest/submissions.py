"""Reads what a call of `Append` submits, and writes its answer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from common.errors import InvalidRequest
from common.uid import parse_uid
from services.ingest.verdicts import Arrival, EventType, Rejection
from shoptrail.ingest.v1 import event_pb2, ingest_pb2

_EVENTS_A_CALL = 10_000
_LARGEST_EVENT_BYTES = 1024 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR_SECONDS = 3600


class Part(msgspec.Struct, gc=False):
    """A submission, and what becomes of its events. A struct, since many hold one event only."""

    store_uid: str
    store: bytes
    arrival: Arrival
    hour: int
    payloads: Sequence[bytes]
    verdicts: list[int]
    faults: list[tuple[int, Rejection]]


def read_parts(request: ingest_pb2.AppendRequest) -> list[Part]:
    """The submissions; raises `InvalidRequest` naming everything wrong at once."""
    violations: dict[str, str] = {}
    parts = []
    event_count = 0
    for number, submission in enumerate(request.submissions):
        payloads = submission.payloads
        event_count += len(payloads)
        store_uid = submission.store_uid
        store = b""
        try:
            store = _parse_store(store_uid)
        except ValueError:
            violations[f"submissions[{number}].store_uid"] = "is not the uid of a store"
        receive_time = None
        if submission.HasField("receive_time"):
            receive_time = _read_time(submission.receive_time)
        if receive_time is None:
            violations[f"submissions[{number}].receive_time"] = "is missing, or not a time"
            continue
        parts.append(
            Part(
                store_uid,
                store,
                Arrival(
                    receive_time,
                    _read_sent_time(submission, number, violations),
                    _read_type(submission, number, violations),
                    submission.client_ip,
                    submission.user_agent,
                    submission.gpc,
                    _read_limit(submission, number, violations),
                    submission.confirmed,
                ),
                submission.receive_time.seconds // _HOUR_SECONDS,
                payloads,
                [event_pb2.VERDICT_UNSPECIFIED] * len(payloads),
                [],
            )
        )
    if event_count > _EVENTS_A_CALL:
        violations["submissions"] = f"may hold {_EVENTS_A_CALL} events in all"
    if violations:
        raise InvalidRequest(violations)
    return parts


def write_answer(parts: Sequence[Part]) -> ingest_pb2.AppendResponse:
    """What became of each submission, in their order."""
    response = ingest_pb2.AppendResponse()
    for part in parts:
        result = response.results.add()
        result.verdicts.extend(part.verdicts)  # type: ignore[arg-type]  # the same numbers
        for index, fault in part.faults:
            result.faults.add(index=index, code=fault.code, path=fault.path, message=str(fault))
    return response


@lru_cache(maxsize=100_000)
def _parse_store(uid: str) -> bytes:
    return parse_uid("sto", uid)


def _read_time(timestamp: Timestamp) -> datetime | None:
    """The time, to the microsecond; None if it is none."""
    try:
        return _EPOCH + timedelta(0, timestamp.seconds, timestamp.nanos // 1000)
    except OverflowError:
        return None


def _read_sent_time(
    submission: ingest_pb2.Submission, number: int, violations: dict[str, str]
) -> datetime | None:
    if not submission.HasField("sent_time"):
        return None
    time = _read_time(submission.sent_time)
    if time is None:
        violations[f"submissions[{number}].sent_time"] = "is not a time"
    return time


def _read_type(
    submission: ingest_pb2.Submission, number: int, violations: dict[str, str]
) -> EventType | None:
    kind = submission.default_type
    if not kind:
        return None
    try:
        return EventType(kind)
    except ValueError:
        violations[f"submissions[{number}].default_type"] = "is not a type of events"
        return None


def _read_limit(submission: ingest_pb2.Submission, number: int, violations: dict[str, str]) -> int:
    limit = submission.event_bytes
    if limit < 0:
        violations[f"submissions[{number}].event_bytes"] = "must not be negative"
    return min(limit, _LARGEST_EVENT_BYTES)
