"""Ingest as production serves it, on each database, and events to send to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from common.db import Database
from common.page_token import PageTokens
from common.uid import new_uid
from services.ingest.repository import add_heads
from services.ingest.servicer import SERVICE, IngestServicer
from services.ingest.subjects import SubjectDigests
from shoptrail.ingest.v1 import event_pb2, ingest_pb2, ingest_pb2_grpc
from tests.conftest import Connect, Databases, Serving, key_metadata

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
STORE, OTHER_STORE = new_uid("sto"), new_uid("sto")
SHARDS = 4

ACCEPTED = event_pb2.VERDICT_ACCEPTED
DUPLICATE = event_pb2.VERDICT_DUPLICATE
REJECTED = event_pb2.VERDICT_REJECTED
QUOTA = event_pb2.VERDICT_QUOTA

Stub: TypeAlias = "ingest_pb2_grpc.IngestAsyncStub"


@pytest.fixture
async def database(databases: Databases) -> AsyncIterator[Database]:
    async with databases("ingest") as database:
        yield database


@pytest.fixture
async def connect(database: Database, serving: Serving) -> AsyncIterator[Connect]:
    async with database.begin() as transaction:
        await add_heads(transaction, shard_count=SHARDS)
    servicer = IngestServicer(
        database,
        now=lambda: NOW,
        shard_count=SHARDS,
        event_bytes=32 * 1024,
        page_tokens=PageTokens(bytes(32)),
        subject_digests=SubjectDigests(bytes(32)),
    )
    async with serving(
        [SERVICE], lambda server: ingest_pb2_grpc.add_IngestServicer_to_server(servicer, server)
    ) as connect:
        yield connect


@pytest.fixture
def ingest(connect: Connect) -> ingest_pb2_grpc.IngestAsyncStub:
    return ingest_pb2_grpc.IngestStub(connect("gateway"))


@pytest.fixture
def log(connect: Connect) -> ingest_pb2_grpc.IngestAsyncStub:
    return ingest_pb2_grpc.IngestStub(connect("query"))


def viewed(message_id: str = "", **fields: object) -> bytes:
    event = {"type": "track", "event": "Product Viewed", "userId": "ada", **fields}
    return json.dumps(event | ({"messageId": message_id} if message_id else {})).encode()


def submission(*payloads: bytes, store_uid: str = STORE) -> ingest_pb2.Submission:
    received = Timestamp()
    received.FromDatetime(NOW)
    return ingest_pb2.Submission(store_uid=store_uid, receive_time=received, payloads=payloads)


def batch(*payloads: bytes, store_uid: str = STORE) -> ingest_pb2.AppendRequest:
    return ingest_pb2.AppendRequest(submissions=[submission(*payloads, store_uid=store_uid)])


def verdicts(response: ingest_pb2.AppendResponse) -> list[int]:
    return [verdict for result in response.results for verdict in result.verdicts]


async def read_all(log: Stub, *, page_size: int = 7) -> list[event_pb2.Event]:
    events: list[event_pb2.Event] = []
    for shard in range(SHARDS):
        after = 0
        while True:
            request = ingest_pb2.ReadLogRequest(
                shard=shard, after_position=after, page_size=page_size
            )
            page = await log.ReadLog(request, timeout=5)
            assert [event.position for event in page.events] == [
                after + 1 + number for number in range(len(page.events))
            ]
            if not page.events:
                assert page.head_position == after
                break
            events += page.events
            after = page.events[-1].position
    return events


ALL = key_metadata(
    *("events:read", "events:write", "reports:read", "settings:read", "settings:write"),
    store_uid=STORE,
)
"""What the gateway says of a secret key of the store."""


async def refusal_of(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def sums_of(ingest: Stub, store_uid: str = STORE) -> ingest_pb2.VerdictCounts:
    """The balance of the days around now."""
    request = ingest_pb2.SumVerdictsRequest(store_uid=store_uid)
    request.begin_time.FromDatetime(NOW - timedelta(days=40))
    request.end_time.FromDatetime(NOW + timedelta(days=40))
    metadata = key_metadata("reports:read", store_uid=store_uid)
    response = await ingest.SumVerdicts(request, timeout=5, metadata=metadata)
    return response.total
