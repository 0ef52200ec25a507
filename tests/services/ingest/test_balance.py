"""Whatever is sent, in whatever order and by however many at once: every event is accounted for."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.db import Database
from common.page_token import PageTokens
from common.uid import new_uid
from services.ingest.repository import add_heads
from services.ingest.servicer import SERVICE, IngestServicer
from services.ingest.subjects import SubjectDigests
from services.ingest.verdicts import Arrival, EventType, Rejection, read_event
from shoptrail.ingest.v1 import event_pb2, ingest_pb2, ingest_pb2_grpc
from tests.conftest import Serving, key_metadata
from tests.services.ingest.conftest import (
    ACCEPTED,
    DUPLICATE,
    NOW,
    REJECTED,
    SHARDS,
    Stub,
    read_all,
    submission,
    sums_of,
)

EVENT_BYTES = 4096
# Few, so that they meet; some are the same to careless comparisons.
MESSAGE_IDS = st.sampled_from(["m", "M", "m ", "m\0", "ḿ", "ḿ", "😀", "😁", "7", 7, "x" * 255])
BAD_MESSAGE_IDS = st.sampled_from(["x" * 256, 1.5, [], {}, True, 10**30])
NAMES = st.one_of(st.sampled_from(["Paid", "Order Completed", "", "n" * 255]), st.text(max_size=9))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@st.composite
def events(draw: st.DrawFn) -> bytes:
    """Events as senders mean them, good ones and bad ones."""
    event: dict[str, Any] = {
        "type": draw(st.sampled_from(["track"] * 6 + ["page", "alias", "nonsense", ""]))
    }
    optional: dict[str, st.SearchStrategy[Any]] = {
        "event": NAMES,
        "userId": st.sampled_from(["u", "v"])
        | st.text(max_size=5)
        | st.sampled_from(["ada", "\0", "😀", 42, 10**40]),
        "messageId": MESSAGE_IDS,
        "timestamp": st.sampled_from(["2026-11-22T11:00:00Z", "0001-01-01", "soon", None]),
        "properties": VALUES,
        "context": VALUES | st.fixed_dictionaries({"ip": st.just("203.0.113.7")}),
    }
    for name, values in optional.items():
        if draw(st.integers(0, 9)):
            event[name] = draw(values)
    if not draw(st.integers(0, 19)):
        event["messageId"] = draw(BAD_MESSAGE_IDS)
    ascii_only = draw(st.booleans())
    return json.dumps(event, ensure_ascii=ascii_only).encode(errors="surrogatepass")


# What no sender means, and some send.
ODDITIES = st.sampled_from(
    [
        b'{"type":"track","event":"a","userId":"u","messageId":"\\ud800"}',
        b'{"type":"track","event":"a","userId":"u","messageId":"m","p":"\\udfff"}',
        b'{"type":"track","event":"a","userId":"u","messageId":"m","p":"\xed\xa0\x80"}',
        b'{"type":"track","event":"a\\u0000b","userId":"\\u0000","messageId":"m\\u0000"}',
        b'{"type":"track","event":"a","userId":"u","messageId":"m","messageId":"M"}',
        b'{"type":"page","type":"track","event":"a","userId":"u","userId":"v","messageId":"7"}',
        b'{"type":"track","event":"a","userId":%b,"messageId":"m"}' % (b"9" * 600),
        b'{"type":"track","event":"a","userId":"u","messageId":"m","p":1e9999}',
        b'{"type":"track","event":"a","userId":"u","p":' + b"[" * 60 + b"]" * 60 + b"}",
        b'{"type":"track","event":"a","userId":"u","p":' + b"[" * 70 + b"]" * 70 + b"}",
        b'{"p":' + b'{"p":' * 700,
        b'{"type":"track","event":"a","userId":"u","messageId":"m","p":"' + b"x" * 5000 + b'"}',
        b"",
        b"null",
        b"[]",
        b"\x1f\x8b\x08\x00\x00",
    ]
)
CALLS = st.lists(
    st.lists(  # The submissions of a call: whose, and which events.
        st.tuples(
            st.integers(0, 1),
            st.lists(events() | events() | events() | ODDITIES | st.binary(max_size=9)),
        ),
        max_size=3,
    ),
    min_size=1,
    max_size=4,
)
Calls = Sequence[Sequence[tuple[int, Sequence[bytes]]]]


@pytest.fixture
async def replicas(database: Database, serving: Serving) -> AsyncIterator[list[Stub]]:
    """Two replicas of Ingest over the same database."""
    async with database.begin() as transaction:
        await add_heads(transaction, shard_count=SHARDS)
    async with AsyncExitStack() as stack:
        stubs = []
        for _ in range(2):
            servicer = IngestServicer(
                database,
                now=lambda: NOW,
                shard_count=SHARDS,
                event_bytes=EVENT_BYTES,
                page_tokens=PageTokens(bytes(32)),
                subject_digests=SubjectDigests(bytes(32)),
            )

            def register(server: object, servicer: IngestServicer = servicer) -> None:
                ingest_pb2_grpc.add_IngestServicer_to_server(servicer, server)  # type: ignore[arg-type]

            connect = await stack.enter_async_context(serving([SERVICE], register))
            stubs += [
                ingest_pb2_grpc.IngestStub(connect(identity)) for identity in ("gateway", "query")
            ]
        yield stubs


@settings(
    max_examples=12,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(calls=CALLS)
async def test_the_balance_holds_to_the_event(replicas: list[Stub], calls: Calls) -> None:
    gateway, log, other_gateway, _ = replicas
    stores = [new_uid("sto"), new_uid("sto")]
    requests = [
        ingest_pb2.AppendRequest(
            submissions=[submission(*payloads, store_uid=stores[store]) for store, payloads in call]
        )
        for call in calls
    ]

    # Each is sent twice, to two replicas, all at once: as by clients that lost the answer.
    answers = await asyncio.gather(
        *(
            stub.Append(request, timeout=20)
            for request in requests
            for stub in (gateway, other_gateway)
        )
    )

    logged = await read_all(log, page_size=5000)
    for number, store_uid in enumerate(stores):
        sent = [
            payload
            for call in calls
            for store, payloads in call
            if store == number
            for payload in payloads
        ] * 2
        given_verdicts = verdicts_of(store_uid, requests, answers)
        sums = await sums_of(gateway, store_uid)
        kept = [event for event in logged if event.store_uid == store_uid]

        # What was answered is what was counted, and what was counted is what there is.
        assert given_verdicts.total() == sums.received_count == len(sent)
        assert given_verdicts[ACCEPTED] == sums.accepted_count == len(kept)
        assert given_verdicts[DUPLICATE] == sums.duplicate_count
        assert given_verdicts[REJECTED] == sums.rejected_count
        assert Counter(map(what_is_stored_of, kept)) == expected_of(sent)
        await check_rejected(gateway, store_uid, sent)


def verdicts_of(
    store_uid: str,
    requests: Sequence[ingest_pb2.AppendRequest],
    answers: Sequence[ingest_pb2.AppendResponse],
) -> Counter[int]:
    counts: Counter[int] = Counter()
    for place, answer in enumerate(answers):
        for part, result in zip(requests[place // 2].submissions, answer.results, strict=True):
            faults = [index for index, v in enumerate(result.verdicts) if v == REJECTED]
            assert [fault.index for fault in result.faults] == faults
            if part.store_uid == store_uid:
                counts.update(result.verdicts)
    return counts


def what_is_stored_of(event: event_pb2.Event) -> str:
    return "" if event.message_id == event.uid else event.message_id


def is_good(payload: bytes) -> bool:
    try:
        read_event(payload, Arrival(NOW), limit_bytes=EVENT_BYTES)
    except Rejection:
        return False
    return True


def expected_of(sent: Sequence[bytes]) -> Counter[str]:
    """How often each message id is to be stored: once, but always where there is none."""
    expected: Counter[str] = Counter()
    for payload in sent:
        if is_good(payload):
            reading = read_event(payload, Arrival(NOW), limit_bytes=EVENT_BYTES)
            assert reading.type in EventType
            expected[reading.message_id] += 1
    return Counter({id_: 1 if id_ else count for id_, count in expected.items()})


async def check_rejected(ingest: Stub, store_uid: str, sent: Sequence[bytes]) -> None:
    """Nothing that was rejected is lost."""
    scopes = key_metadata("events:read", store_uid=store_uid)
    request = ingest_pb2.ListRejectedEventsRequest(store_uid=store_uid, page_size=200)
    page = await ingest.ListRejectedEvents(request, timeout=5, metadata=scopes)
    kept = {event.message_id: event for event in page.rejected_events}
    texts = {event.payload for event in page.rejected_events}
    assert not page.next_page_token
    assert len(kept) == len(page.rejected_events)
    for payload in sent:
        text = payload.decode(errors="replace").replace("203.0.113.7", "203.0.113.0")
        # Of two with the same message id, the first is kept.
        assert is_good(payload) or text in texts or message_id_in(payload) in kept


def message_id_in(payload: bytes) -> str:
    try:
        return str(json.loads(payload)["messageId"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "?"
