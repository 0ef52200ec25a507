"""Programs that call Ingest themselves, with their certificate or with a key."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping

import grpc
import pytest

from common.context import Key
from common.db import Database
from common.errors import KeyNotValid
from common.page_token import PageTokens
from common.server import build_server, listen
from common.tls import Certificates
from services.ingest.repository import add_heads
from services.ingest.servicer import SERVICE, IngestServicer
from services.ingest.subjects import SubjectDigests
from shoptrail.ingest.v1 import event_pb2, ingest_pb2, ingest_pb2_grpc
from tests.conftest import Connect
from tests.services.ingest.conftest import (
    ACCEPTED,
    DUPLICATE,
    NOW,
    OTHER_STORE,
    REJECTED,
    SHARDS,
    STORE,
    read_all,
    viewed,
)
from tests.services.keys.conftest import refusal_of

KEYS = {
    "sk": Key("key_1", STORE, frozenset({"events:write"})),
    "pk": Key("key_2", STORE, frozenset({"events:write"}), is_publishable=True),
    "reader": Key("key_3", STORE, frozenset({"reports:read"})),
}


async def verify(text: str, headers: Mapping[bytes, bytes]) -> Key:
    if text not in KEYS:
        raise KeyNotValid
    return KEYS[text]


@pytest.fixture
async def connect(
    database: Database, certificates: Mapping[str, Certificates]
) -> AsyncIterator[Connect]:
    """Ingest's server, which is shown keys."""
    async with database.begin() as transaction:
        await add_heads(transaction, shard_count=SHARDS)
    server = build_server([SERVICE], verify=verify)
    servicer = IngestServicer(
        database,
        now=lambda: NOW,
        shard_count=SHARDS,
        event_bytes=32 * 1024,
        page_tokens=PageTokens(bytes(32)),
        subject_digests=SubjectDigests(bytes(32)),
    )
    ingest_pb2_grpc.add_IngestServicer_to_server(servicer, server)
    port = listen(server, "127.0.0.1:0", certificates["ingest"])
    await server.start()
    connect = Connect(f"127.0.0.1:{port}", SERVICE, certificates)
    yield connect
    await connect.close()
    await server.stop(None)


async def record(
    channel: grpc.aio.Channel, *payloads: bytes, key: str = "", store_uid: str = STORE
) -> ingest_pb2.SubmissionResult:
    metadata = [("authorization", f"Bearer {key}")] if key else []
    answer = await ingest_pb2_grpc.IngestStub(channel).Record(
        ingest_pb2.RecordRequest(store_uid=store_uid, payloads=payloads),
        timeout=5,
        metadata=metadata,
    )
    return answer.result


async def test_an_order_service_records_what_is_confirmed(
    connect: Connect, log: ingest_pb2_grpc.IngestAsyncStub
) -> None:
    nameless = viewed("m2", event="")

    first = await record(connect("order-service"), viewed("m1"), nameless)
    again = await record(connect("order-service"), viewed("m1"))

    assert list(first.verdicts) == [ACCEPTED, REJECTED]
    assert [(fault.index, fault.code) for fault in first.faults] == [(1, "name_missing")]
    assert list(again.verdicts) == [DUPLICATE]
    [event] = await read_all(log)
    assert json.loads(event.enrichment)["confirmed"] is True
    assert event.receive_time.ToDatetime() == NOW.replace(tzinfo=None)


@pytest.mark.parametrize(("key", "confirmed"), [("sk", True), ("pk", False)])
async def test_a_client_records_what_its_key_is_worth(
    connect: Connect, log: ingest_pb2_grpc.IngestAsyncStub, key: str, confirmed: bool
) -> None:
    await record(connect("client"), viewed("m1"), key=key)

    [event] = await read_all(log)
    assert json.loads(event.enrichment or "{}").get("confirmed", False) is confirmed


@pytest.mark.parametrize(
    ("key", "store_uid", "reason"),
    [
        ("", STORE, "KEY_MISSING"),
        ("unknown", STORE, "KEY_NOT_VALID"),
        ("reader", STORE, "SCOPE_MISSING"),
        ("sk", OTHER_STORE, "WRONG_STORE"),
        ("sk", "", "WRONG_STORE"),
    ],
    ids=["none", "unknown", "no scope", "another store", "no store"],
)
async def test_a_client_is_refused_as_over_http(
    connect: Connect,
    log: ingest_pb2_grpc.IngestAsyncStub,
    key: str,
    store_uid: str,
    reason: str,
) -> None:
    call = record(connect("client"), viewed("m1"), key=key, store_uid=store_uid)

    assert (await refusal_of(call)).reason == reason
    assert await read_all(log) == []


async def test_what_is_wrong_with_a_request_is_named_as_the_request_has_it(
    connect: Connect,
) -> None:
    stub = ingest_pb2_grpc.IngestStub(connect("order-service"))
    unknown_type: event_pb2.EventType.ValueType = 77  # type: ignore[assignment]  # as meant
    request = ingest_pb2.RecordRequest(
        store_uid="mine", default_type=unknown_type, payloads=[b"{}"] * 10_001
    )

    refusal = await refusal_of(stub.Record(request, timeout=5))

    assert refusal.fields == {"store_uid", "default_type", "payloads"}
