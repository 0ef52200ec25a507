"""Ingest through its front door, on both databases."""

from __future__ import annotations

import asyncio
from datetime import UTC

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from common.uid import new_uid
from shoptrail.ingest.v1 import event_pb2, ingest_pb2, ingest_pb2_grpc
from tests.services.ingest.conftest import (
    ACCEPTED,
    DUPLICATE,
    NOW,
    OTHER_STORE,
    REJECTED,
    SHARDS,
    STORE,
    batch,
    read_all,
    submission,
    verdicts,
    viewed,
)


async def test_an_event_is_logged_as_it_was_sent(
    ingest: ingest_pb2_grpc.IngestAsyncStub, log: ingest_pb2_grpc.IngestAsyncStub
) -> None:
    payload = viewed(
        "m1", anonymousId="anon", properties={"emoji": "🛒", "nul": "\0", "price": 1e400}
    ).replace(b"Infinity", b"1e400")

    response = await ingest.Append(batch(payload), timeout=5)

    assert verdicts(response) == [ACCEPTED]
    (event,) = await read_all(log)
    assert event.uid.startswith("evt_")
    assert event.payload == payload
    assert (event.store_uid, event.message_id, event.name) == (STORE, "m1", "Product Viewed")
    assert (event.user_id, event.anonymous_id) == ("ada", "anon")
    assert event.type == event_pb2.EVENT_TYPE_TRACK
    assert event.occur_time.ToDatetime(tzinfo=UTC) == NOW


async def test_a_retried_batch_is_stored_once(
    ingest: ingest_pb2_grpc.IngestAsyncStub, log: ingest_pb2_grpc.IngestAsyncStub
) -> None:
    request = batch(viewed("m1"), viewed("m2"))

    first = await ingest.Append(request, timeout=5)
    again = await ingest.Append(request, timeout=5)

    assert verdicts(first) == [ACCEPTED, ACCEPTED]
    assert verdicts(again) == [DUPLICATE, DUPLICATE]
    assert len(await read_all(log)) == 2


async def test_message_ids_are_compared_byte_by_byte(
    ingest: ingest_pb2_grpc.IngestAsyncStub, log: ingest_pb2_grpc.IngestAsyncStub
) -> None:
    ids = ["m", "M", "m ", "ḿ", "m\0"]

    response = await ingest.Append(batch(*map(viewed, ids)), timeout=5)

    assert verdicts(response) == [ACCEPTED] * len(ids)
    assert sorted(event.message_id for event in await read_all(log)) == sorted(ids)


async def test_the_first_of_a_call_is_stored_and_those_after_it_are_duplicates(
    ingest: ingest_pb2_grpc.IngestAsyncStub, log: ingest_pb2_grpc.IngestAsyncStub
) -> None:
    request = ingest_pb2.AppendRequest(
        submissions=[
            submission(viewed("m1", first=True), viewed("m1")),
            submission(viewed("m1")),
            submission(viewed("m1"), store_uid=OTHER_STORE),
        ]
    )

    response = await ingest.Append(request, timeout=5)

    assert verdicts(response) == [ACCEPTED, DUPLICATE, DUPLICATE, ACCEPTED]
    assert [event for event in await read_all(log) if b"first" in event.payload]


async def test_a_bad_event_does_not_harm_its_neighbours(
    ingest: ingest_pb2_grpc.IngestAsyncStub, log: ingest_pb2_grpc.IngestAsyncStub
) -> None:
    payloads = [viewed(f"m{number}") for number in range(100)]
    payloads[57] = viewed("m57", event="")

    response = await ingest.Append(batch(*payloads), timeout=5)

    assert verdicts(response).count(ACCEPTED) == 99
    (fault,) = response.results[0].faults
    assert (fault.index, fault.code, fault.path) == (57, "name_missing", "event")
    assert response.results[0].verdicts[57] == REJECTED
    assert len(await read_all(log)) == 99


async def test_events_without_a_message_id_are_all_kept(
    ingest: ingest_pb2_grpc.IngestAsyncStub, log: ingest_pb2_grpc.IngestAsyncStub
) -> None:
    response = await ingest.Append(batch(viewed(), viewed()), timeout=5)

    assert verdicts(response) == [ACCEPTED, ACCEPTED]
    assert all(event.message_id == event.uid for event in await read_all(log))


async def test_writers_at_the_same_time_leave_no_gap_and_no_double(
    ingest: ingest_pb2_grpc.IngestAsyncStub, log: ingest_pb2_grpc.IngestAsyncStub
) -> None:
    stores = [new_uid("sto") for _ in range(6)]
    requests = [
        ingest_pb2.AppendRequest(
            submissions=[
                submission(*(viewed(f"m{call + number}") for number in range(5)), store_uid=store)
                for store in stores
            ]
        )
        for call in range(20)
    ]

    responses = await asyncio.gather(*(ingest.Append(request, timeout=20) for request in requests))

    accepted = sum(verdicts(response).count(ACCEPTED) for response in responses)
    events = await read_all(log)
    assert accepted == len(events) == len(stores) * 24
    assert len({(event.store_uid, event.message_id) for event in events}) == len(events)


async def test_a_reader_that_waits_is_woken_by_the_first_event(
    ingest: ingest_pb2_grpc.IngestAsyncStub, log: ingest_pb2_grpc.IngestAsyncStub
) -> None:
    waiting = [
        asyncio.ensure_future(
            log.ReadLog(
                ingest_pb2.ReadLogRequest(shard=shard, wait=Duration(seconds=10)), timeout=15
            )
        )
        for shard in range(SHARDS)
    ]
    await ingest.Append(batch(viewed("m1")), timeout=5)

    done, still_waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)

    (answer,) = done
    assert [event.message_id for event in answer.result().events] == ["m1"]
    for call in still_waiting:
        call.cancel()


async def test_a_page_of_large_events_stays_below_the_size_of_a_message(
    ingest: ingest_pb2_grpc.IngestAsyncStub, log: ingest_pb2_grpc.IngestAsyncStub
) -> None:
    payloads = [viewed(f"m{number}", filler="x" * 30_000) for number in range(200)]
    await ingest.Append(batch(*payloads), timeout=20)

    pages = [
        await log.ReadLog(ingest_pb2.ReadLogRequest(shard=shard, page_size=5000), timeout=5)
        for shard in range(SHARDS)
    ]

    (page,) = (page for page in pages if page.events)
    assert 100 < len(page.events) < 200
    assert page.head_position == 200


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (ingest_pb2.ReadLogRequest(shard=SHARDS, after_position=-1), ["shard", "after_position"]),
        (ingest_pb2.ReadLogRequest(shard=-1), ["shard"]),
        (ingest_pb2.ReadLogRequest(page_size=-1), ["page_size"]),
    ],
)
async def test_a_place_that_is_not_in_the_log_is_refused(
    log: ingest_pb2_grpc.IngestAsyncStub, request_: ingest_pb2.ReadLogRequest, fields: list[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await log.ReadLog(request_, timeout=5)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert all(field in str(caught.value.details()) for field in fields)


async def test_everything_that_is_wrong_with_a_call_is_named_at_once(
    ingest: ingest_pb2_grpc.IngestAsyncStub,
) -> None:
    request = ingest_pb2.AppendRequest(
        submissions=[
            ingest_pb2.Submission(store_uid="sto_1", payloads=[viewed("m1")]),
            ingest_pb2.Submission(store_uid=STORE, receive_time=Timestamp(seconds=1 << 60)),
            ingest_pb2.Submission(store_uid=STORE, receive_time=Timestamp(seconds=1)),
        ]
    )
    request.submissions[2].default_type = 99  # type: ignore[assignment]  # not in the enum

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ingest.Append(request, timeout=5)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    for field in (
        "submissions[0].store_uid",
        "submissions[0].receive_time",
        "submissions[1].receive_time",
        "submissions[2].default_type",
    ):
        assert field in str(caught.value.details())


async def test_more_events_than_a_call_may_carry_are_refused_as_a_whole(
    ingest: ingest_pb2_grpc.IngestAsyncStub, log: ingest_pb2_grpc.IngestAsyncStub
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ingest.Append(batch(*[b"{}"] * 10_001), timeout=5)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await read_all(log) == []


async def test_as_much_as_a_call_may_hold_is_stored(
    ingest: ingest_pb2_grpc.IngestAsyncStub, log: ingest_pb2_grpc.IngestAsyncStub
) -> None:
    large = [viewed(f"m{number}", note="x" * 30_000) for number in range(330)]

    assert verdicts(await ingest.Append(batch(*large), timeout=20)) == [ACCEPTED] * 330
    again = await ingest.Append(batch(viewed("new"), *large), timeout=20)
    assert verdicts(again) == [ACCEPTED] + [DUPLICATE] * 330
    assert len(await read_all(log, page_size=500)) == 331
