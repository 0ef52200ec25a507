"""What becomes of rejected events: kept, grouped, fixed and replayed."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import grpc
import pytest

from shoptrail.ingest.v1 import ingest_pb2 as pb
from tests.conftest import key_metadata
from tests.services.ingest.conftest import (
    ACCEPTED,
    ALL,
    DUPLICATE,
    NOW,
    OTHER_STORE,
    REJECTED,
    STORE,
    Stub,
    batch,
    read_all,
    refusal_of,
    submission,
    sums_of,
    verdicts,
    viewed,
)

NAMELESS = '[{"op": "add", "path": "/userId", "value": "ada"}]'


def without_user(message_id: str, **fields: object) -> bytes:
    return viewed(message_id, userId=None, **fields)


async def list_all(ingest: Stub, **conditions: str) -> list[pb.ListRejectedEventsResponse]:
    pages = []
    request = pb.ListRejectedEventsRequest(store_uid=STORE, page_size=2, **conditions)
    while True:
        page = await ingest.ListRejectedEvents(request, timeout=5, metadata=ALL)
        pages.append(page)
        if not page.next_page_token:
            return pages
        request.page_token = page.next_page_token


async def fix(ingest: Stub, patch: str = NAMELESS, **more: object) -> pb.FixRejectedEventsResponse:
    request = pb.FixRejectedEventsRequest(store_uid=STORE, patch=patch, **more)  # type: ignore[arg-type]
    return await ingest.FixRejectedEvents(request, timeout=5, metadata=ALL)


async def replay(ingest: Stub, **more: object) -> pb.ReplayRejectedEventsResponse:
    request = pb.ReplayRejectedEventsRequest(store_uid=STORE, **more)  # type: ignore[arg-type]
    return await ingest.ReplayRejectedEvents(request, timeout=5, metadata=ALL)


async def receipts_of(ingest: Stub, *message_ids: str) -> list[pb.Receipt]:
    request = pb.GetReceiptsRequest(store_uid=STORE, message_ids=message_ids)
    return list((await ingest.GetReceipts(request, timeout=5, metadata=ALL)).receipts)


async def test_a_rejected_event_is_kept_as_it_was_sent_and_found_by_its_message_id(
    ingest: Stub,
) -> None:
    payload = without_user("m1", properties={"note": "é"})
    await ingest.Append(batch(payload, viewed("m2")), timeout=5)

    (page,) = await list_all(ingest)
    rejected, accepted = await receipts_of(ingest, "m1", "unheard-of", "m2")

    (kept,) = page.rejected_events
    assert kept.uid.startswith("rej_")
    assert (kept.payload, kept.payload_bytes) == (payload.decode(), len(payload))
    assert (kept.message_id, kept.name, kept.type) == ("m1", "Product Viewed", 1)
    assert kept.fault.code == "identity_missing"
    assert (rejected.verdict, rejected.uid) == (REJECTED, kept.uid)
    assert rejected.fault.code == "identity_missing"
    assert (accepted.verdict, accepted.message_id) == (ACCEPTED, "m2")
    assert accepted.uid.startswith("evt_")


async def test_what_is_no_json_at_all_is_kept_too(ingest: Stub) -> None:
    payloads = [b"\xff\x00", b"", b'{"type":"track","userId":"\\ud800"}', b"[" * 5000, b"null"]

    await ingest.Append(batch(*payloads, *payloads), timeout=5)

    kept = [event for page in await list_all(ingest) for event in page.rejected_events]
    assert len(kept) == 10
    assert all(event.message_id == event.uid for event in kept)
    assert kept[-1].payload == "\ufffd\0"


async def test_an_event_that_is_rejected_again_is_kept_once_and_counted_twice(
    ingest: Stub,
) -> None:
    for _ in range(2):
        await ingest.Append(batch(without_user("m1"), without_user("m1")), timeout=5)

    (page,) = await list_all(ingest)
    assert len(page.rejected_events) == 1
    assert (await sums_of(ingest)).rejected_count == 4


async def test_rejected_events_are_listed_by_pages_latest_first_and_by_reason(
    ingest: Stub,
) -> None:
    bad = [without_user(f"m{number}") for number in range(3)]
    await ingest.Append(batch(*bad, viewed("m3", event=""), viewed("m4", event=7)), timeout=5)
    await ingest.Append(batch(without_user("m0"), store_uid=OTHER_STORE), timeout=5)

    pages = await list_all(ingest)
    of_reason = await list_all(ingest, code="wrong_type", path="event")
    request = pb.CountRejectedEventsRequest(store_uid=STORE)
    reasons = (await ingest.CountRejectedEvents(request, timeout=5, metadata=ALL)).reasons

    ids = [[event.message_id for event in page.rejected_events] for page in pages]
    assert ids == [["m4", "m3"], ["m2", "m1"], ["m0"]]
    assert [[event.message_id for event in page.rejected_events] for page in of_reason] == [["m4"]]
    assert [(reason.code, reason.path, reason.name, reason.event_count) for reason in reasons] == [
        ("identity_missing", "", "Product Viewed", 3),
        ("name_missing", "event", "", 1),
        ("wrong_type", "event", "7", 1),
    ]
    assert reasons[0].first_receive_time.ToDatetime() == NOW.replace(tzinfo=None)


async def test_a_fixed_event_is_replayed_with_its_message_id_and_receive_time(
    ingest: Stub, log: Stub
) -> None:
    await ingest.Append(batch(without_user("m1", properties={"price": 0.10})), timeout=5)

    tried = await fix(ingest, dry_run=True)
    still_rejected = await replay(ingest)
    fixed = await fix(ingest)
    replayed = await replay(ingest)

    assert tried.fixed_events == fixed.fixed_events
    assert fixed.fixed_events[0].patched
    assert not fixed.fixed_events[0].HasField("fault")
    assert [event.verdict for event in still_rejected.replayed_events] == [REJECTED]
    assert [event.verdict for event in replayed.replayed_events] == [ACCEPTED]
    (event,) = await read_all(log)
    assert (event.message_id, event.user_id) == ("m1", "ada")
    assert event.receive_time.ToDatetime() == NOW.replace(tzinfo=None)
    assert json.loads(event.payload)["properties"] == {"price": 0.1}
    sums = await sums_of(ingest)
    assert (sums.received_count, sums.accepted_count, sums.rejected_count) == (1, 1, 0)


async def test_what_is_replayed_twice_is_stored_once(ingest: Stub, log: Stub) -> None:
    payloads = [without_user(f"m{number}") for number in range(20)]
    await ingest.Append(batch(*payloads), timeout=5)
    await fix(ingest)

    answers = await asyncio.gather(*(replay(ingest) for _ in range(4)))
    again = await ingest.Append(batch(viewed("m3")), timeout=5)

    outcomes = [event.verdict for answer in answers for event in answer.replayed_events]
    assert outcomes == [ACCEPTED] * 20
    assert verdicts(again) == [DUPLICATE]
    assert len(await read_all(log)) == 20
    assert (await sums_of(ingest)).received_count == 21


async def test_a_replayed_event_that_was_sent_again_meanwhile_is_a_duplicate(
    ingest: Stub, log: Stub
) -> None:
    await ingest.Append(batch(without_user("m1")), timeout=5)
    await ingest.Append(batch(viewed("m1")), timeout=5)
    await fix(ingest)

    tried = await replay(ingest, dry_run=True)
    replayed = await replay(ingest)

    assert [event.verdict for event in tried.replayed_events] == [DUPLICATE]
    assert [event.verdict for event in replayed.replayed_events] == [DUPLICATE]
    assert len(await read_all(log)) == 1
    assert not (await replay(ingest)).replayed_events
    sums = await sums_of(ingest)
    assert (sums.received_count, sums.accepted_count, sums.duplicate_count) == (2, 1, 1)


async def test_a_patch_changes_no_digit_of_what_it_does_not_touch(ingest: Stub) -> None:
    numbers = '{"a":0.10,"b":12345678901234567890123,"c":1E+400,"d":-0.0}'
    payload = without_user("m1", properties="here").replace(b'"here"', numbers.encode())
    await ingest.Append(batch(payload), timeout=5)

    fixed = await fix(ingest)

    assert numbers in fixed.fixed_events[0].payload


async def test_only_what_the_filter_names_is_fixed_and_replayed(ingest: Stub, log: Stub) -> None:
    await ingest.Append(batch(without_user("m1"), without_user("m2")), timeout=5)
    (page,) = await list_all(ingest)
    chosen = pb.RejectedEventFilter(uids=[page.rejected_events[0].uid, "rej_bad"])

    await fix(ingest, filter=chosen)
    await replay(ingest, filter=pb.RejectedEventFilter(name="Product Viewed"))

    assert [event.message_id for event in await read_all(log)] == ["m2"]


async def test_a_patch_that_can_not_be_applied_leaves_the_event_as_it_was(ingest: Stub) -> None:
    await ingest.Append(batch(without_user("m1"), b"not json"), timeout=5)

    answer = await fix(ingest, '[{"op": "replace", "path": "/nowhere", "value": 1}]')
    whole = '[{"op": "add", "path": "", "value": {"type":"page","userId":"u"}}]'
    replaced = await fix(ingest, whole, filter=pb.RejectedEventFilter(code="not_json"))

    assert [event.patched for event in answer.fixed_events] == [False, False]
    assert [event.fault.code for event in answer.fixed_events] == ["not_json", "identity_missing"]
    assert [event.HasField("fault") for event in replaced.fixed_events] == [False]


async def test_a_patch_can_not_blow_an_event_up(ingest: Stub) -> None:
    await ingest.Append(batch(without_user("m1", filler="x" * 9000)), timeout=5)

    doubling = json.dumps([{"op": "copy", "from": "", "path": f"/{n}"} for n in range(40)])
    answer = await fix(ingest, doubling)

    assert [event.patched for event in answer.fixed_events] == [False]


@pytest.mark.parametrize(
    "patch",
    ["", "{}", "[]", "[1]", '[{"op":"fly","path":"/a"}]', '[{"op":"remove"}]', "[" * 70_000],
)
async def test_what_is_no_patch_is_refused(ingest: Stub, patch: str) -> None:
    refusal = await refusal_of(fix(ingest, patch))

    assert refusal.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "patch" in str(refusal.details())


async def test_the_verdicts_of_each_hour_are_summed(ingest: Stub) -> None:
    earlier = submission(viewed("m1"), viewed("m1"), b"{}")
    earlier.receive_time.FromDatetime(NOW - timedelta(hours=2, minutes=1))
    request = pb.AppendRequest(submissions=[earlier, submission(viewed("m2"))])
    await ingest.Append(request, timeout=5)

    asked = pb.SumVerdictsRequest(store_uid=STORE)
    asked.begin_time.FromDatetime(NOW - timedelta(hours=2, minutes=30))
    asked.end_time.FromDatetime(NOW + timedelta(seconds=1))
    answer = await ingest.SumVerdicts(asked, timeout=5, metadata=ALL)
    asked.end_time.FromDatetime(NOW)
    before_noon = await ingest.SumVerdicts(asked, timeout=5, metadata=ALL)

    first, second = answer.hours
    assert first.begin_time.ToDatetime() == (NOW - timedelta(hours=3)).replace(tzinfo=None)
    assert (first.counts.accepted_count, first.counts.duplicate_count) == (1, 1)
    assert (first.counts.rejected_count, first.counts.received_count) == (1, 3)
    assert second.counts.accepted_count == 1
    assert answer.total.received_count == 4
    assert before_noon.total.received_count == 3


async def test_bad_questions_are_refused(ingest: Stub) -> None:
    span = pb.SumVerdictsRequest(store_uid=STORE)
    span.begin_time.FromDatetime(NOW)
    span.end_time.FromDatetime(NOW + timedelta(days=94))
    many = ["m"] * 201

    refusals = [
        await refusal_of(ingest.SumVerdicts(span, timeout=5, metadata=ALL)),
        await refusal_of(
            ingest.SumVerdicts(pb.SumVerdictsRequest(store_uid=STORE), timeout=5, metadata=ALL)
        ),
        await refusal_of(receipts_of(ingest)),
        await refusal_of(receipts_of(ingest, *many)),
        await refusal_of(replay(ingest, page_size=-1)),
        await refusal_of(replay(ingest, page_token="made up")),
        await refusal_of(replay(ingest, filter=pb.RejectedEventFilter(uids=["rej"] * 501))),
        await refusal_of(
            ingest.CountRejectedEvents(
                pb.CountRejectedEventsRequest(store_uid="sto_1"),
                timeout=5,
                metadata=key_metadata("events:read"),
            )
        ),
    ]

    assert {refusal.code() for refusal in refusals} == {grpc.StatusCode.INVALID_ARGUMENT}


async def test_a_publishable_key_can_not_see_or_replay_what_was_rejected(ingest: Stub) -> None:
    request = pb.ReplayRejectedEventsRequest(store_uid=STORE)
    publishable = key_metadata("events:write", store_uid=STORE)

    refusal = await refusal_of(
        ingest.ReplayRejectedEvents(request, timeout=5, metadata=publishable)
    )

    assert refusal.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_pages_of_a_replay_go_on_where_the_last_one_ended(ingest: Stub, log: Stub) -> None:
    bad = [without_user(f"m{number}") for number in range(5)]
    await ingest.Append(batch(*bad), timeout=5)
    token = ""
    sizes = []
    while True:
        fixed = await fix(ingest, page_size=2, page_token=token)
        sizes.append(len(fixed.fixed_events))
        token = fixed.next_page_token
        if not token:
            break
    first = await replay(ingest, page_size=3)
    second = await replay(ingest, page_size=3, page_token=first.next_page_token)

    assert sizes == [2, 2, 1]
    assert (len(first.replayed_events), len(second.replayed_events)) == (3, 2)
    assert not second.next_page_token
    assert len(await read_all(log)) == 5
