"""An Ingest that serves `ReadLog` from memory, and events to put into it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from common.interceptors.wrap import Context
from common.uid import new_uid
from shoptrail.ingest.v1 import ingest_pb2, ingest_pb2_grpc
from shoptrail.ingest.v1.event_pb2 import Event, EventType

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
TRACK, PAGE, IDENTIFY, ALIAS = (
    EventType.EVENT_TYPE_TRACK,
    EventType.EVENT_TYPE_PAGE,
    EventType.EVENT_TYPE_IDENTIFY,
    EventType.EVENT_TYPE_ALIAS,
)


def timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


def happened(
    store_uid: str,
    name: str = "Product Viewed",
    *,
    at: datetime = NOON,
    of: EventType.ValueType = TRACK,
    payload: bytes = b"{}",
) -> Event:
    """An event that was received a second after it happened."""
    uid = new_uid("evt")
    return Event(
        uid=uid,
        store_uid=store_uid,
        message_id=f"message of {uid}",
        type=of,
        name=name,
        user_id="ada",
        anonymous_id="anon-1",
        occur_time=timestamp(at),
        receive_time=timestamp(at + timedelta(seconds=1)),
        payload=payload,
    )


# Untyped, since the stub wants all methods implemented, of which Query calls one.
_Servicer: Any = ingest_pb2_grpc.IngestServicer


class FakeIngest(_Servicer):  # type: ignore[misc]  # its class is not known to be one
    """A log of some shards, to which a test appends as it likes."""

    def __init__(self, shard_count: int = 1) -> None:
        self.shards: list[list[Event]] = [[] for _ in range(shard_count)]
        self.time = NOON + timedelta(days=1)
        """The `as_of_time` of the answers."""
        self.page_size = 5000
        """At most this many events are given, however many are asked for."""
        self.failures: list[grpc.StatusCode] = []
        """How the next calls end."""
        self.asked_for_news = asyncio.Event()
        """Set while a call waits, and afterwards."""
        self._news = asyncio.Event()

    @property
    def event_count(self) -> int:
        return sum(map(len, self.shards))

    def add(self, *events: Event, shard: int = 0) -> None:
        for event in events:
            event.position = len(self.shards[shard]) + 1
            self.shards[shard].append(event)
        self._news.set()
        self._news = asyncio.Event()

    async def ReadLog(
        self, request: ingest_pb2.ReadLogRequest, context: Context
    ) -> ingest_pb2.ReadLogResponse:
        if self.failures:
            await context.abort(self.failures.pop(0))
        log = self.shards[request.shard]
        if len(log) <= request.after_position:
            self.asked_for_news.set()
            try:
                async with asyncio.timeout(request.wait.ToTimedelta().total_seconds()):
                    await self._news.wait()
            except TimeoutError:
                pass
        after = request.after_position
        return ingest_pb2.ReadLogResponse(
            events=log[after : after + min(request.page_size, self.page_size)],
            head_position=len(log),
            as_of_time=timestamp(self.time),
            shard_count=len(self.shards),
        )
