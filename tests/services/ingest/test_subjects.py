"""A person can be found by all ids, kept out, told of and erased, while others keep sending."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import timedelta
from typing import Any

import grpc
import pytest
from sqlalchemy import select

from common.db import Database
from common.uid import new_uid
from services.ingest.tables import metadata
from shoptrail.ingest.v1 import event_pb2, ingest_pb2, ingest_pb2_grpc
from shoptrail.privacy.v1.subject_pb2 import Subject
from tests.conftest import Connect
from tests.services.ingest.conftest import (
    ACCEPTED,
    ALL,
    OTHER_STORE,
    REJECTED,
    SHARDS,
    STORE,
    Stub,
    batch,
    read_all,
    sums_of,
    verdicts,
)

SUPPRESSED = event_pb2.VERDICT_SUPPRESSED


@pytest.fixture
def maintenance(connect: Connect) -> Stub:
    return ingest_pb2_grpc.IngestStub(connect("maintenance"))


def event(kind: str = "track", **fields: Any) -> bytes:
    return json.dumps({"type": kind, "messageId": new_uid("evt"), **fields}).encode()


def track(name: str = "Product Viewed", **fields: Any) -> bytes:
    return event("track", event=name, **fields)


def identify(user: str, browser: str, **fields: Any) -> bytes:
    return event("identify", userId=user, anonymousId=browser, **fields)


def alias(previous: str, user: str) -> bytes:
    return event("alias", previousId=previous, userId=user)


async def send(ingest: Stub, *payloads: bytes, store_uid: str = STORE) -> list[int]:
    while True:
        try:
            return verdicts(await ingest.Append(batch(*payloads, store_uid=store_uid), timeout=10))
        except grpc.aio.AioRpcError as error:
            # On a machine with much to do a lock may take too long; senders then try again.
            assert error.code() is grpc.StatusCode.ABORTED


async def resolve(maintenance: Stub, **ids: list[str]) -> Subject:
    request = ingest_pb2.ResolveSubjectRequest(store_uid=STORE, subject=Subject(**ids))
    return (await maintenance.ResolveSubject(request, timeout=20)).subject


async def suppress(maintenance: Stub, subject: Subject, *, lifted: bool = False) -> int:
    request = ingest_pb2.SuppressSubjectRequest(store_uid=STORE, subject=subject, lifted=lifted)
    return (await maintenance.SuppressSubject(request, timeout=10)).changed_count


async def erase(maintenance: Stub, subject: Subject) -> dict[str, int]:
    request = ingest_pb2.EraseSubjectRequest(store_uid=STORE, subject=subject)
    answer = await maintenance.EraseSubject(request, timeout=30)
    assert answer.done
    return {one.table: one.row_count for one in answer.erased}


async def planted_in(database: Database, *planted: str) -> list[str]:
    """Where these texts stand: in which columns of all tables there are."""
    found = []
    async with database.read() as snapshot:
        for table in metadata.sorted_tables:
            for row in await snapshot.execute(select(table)):
                for column, value in row._mapping.items():
                    text = value.decode(errors="replace") if isinstance(value, bytes) else value
                    if any(one in str(text) for one in planted):
                        found.append(f"{table.name}.{column}")
    return found


async def test_a_person_is_known_by_all_ids_that_were_stitched(
    ingest: Stub, maintenance: Stub
) -> None:
    await send(
        ingest,
        identify("ada", "phone", traits={"email": "Ada@Example.com"}),
        identify("ada", "laptop"),
        alias("ada-old", "ada"),
        identify("ada-old", "tablet"),
        identify("grace", "desk"),
        identify("ada", "desk", timestamp="2026-11-22T11:59:59Z"),
        identify("grace", "laptop"),
        track(userId="grace", anonymousId="phone"),
    )

    for ids in (
        {"user_ids": ["ada"]},
        {"user_ids": ["ada-old"]},
        {"anonymous_ids": ["tablet"]},
        {"anonymous_ids": ["laptop"]},
        {"emails": ["ADA@example.com"]},
    ):
        found = await resolve(maintenance, **ids)
        assert sorted(found.user_ids) == ["ada", "ada-old"], ids
        # The desk was identified with ada a second before grace; phone and laptop with ada first.
        # What was aliased was a user, and might have been a browser.
        assert sorted(found.anonymous_ids) == ["ada-old", "desk", "laptop", "phone", "tablet"]


async def test_an_id_that_nothing_is_known_of_is_a_person_by_itself(
    ingest: Stub, maintenance: Stub
) -> None:
    await send(ingest, track(anonymousId="window-shopper"))

    assert await resolve(maintenance, anonymous_ids=["window-shopper"]) == Subject(
        anonymous_ids=["window-shopper"]
    )
    assert await resolve(maintenance, user_ids=["nobody"]) == Subject(user_ids=["nobody"])


async def test_events_of_who_is_suppressed_get_no_further_and_are_counted(
    ingest: Stub, maintenance: Stub, log: Stub, database: Database
) -> None:
    subject = Subject(user_ids=["ada"], anonymous_ids=["phone"], emails=["ada@example.com"])

    assert await suppress(maintenance, subject) == 3
    assert await suppress(maintenance, subject) == 0
    got = await send(
        ingest,
        track(userId="ada"),
        track(anonymousId="phone"),
        track(userId="grace", anonymousId="phone"),
        alias("ada", "new-name"),
        identify("new-name", "new-phone", traits={"email": "ADA@example.com"}),
        event("track", userId="ada"),
        track(userId="grace"),
    )
    elsewhere = await send(ingest, track(userId="ada"), store_uid=OTHER_STORE)

    assert got == [
        *(SUPPRESSED, SUPPRESSED, ACCEPTED, SUPPRESSED, SUPPRESSED, SUPPRESSED, ACCEPTED),
    ]
    assert elsewhere == [ACCEPTED]
    sums = await sums_of(ingest)
    assert (sums.received_count, sums.accepted_count, sums.suppressed_count) == (7, 2, 5)
    assert {one.user_id for one in await read_all(log)} == {"grace", "ada"}
    assert await planted_in(database, "ada@example.com", "new-name") == []


async def test_who_is_let_in_again_is_heard_at_once(ingest: Stub, maintenance: Stub) -> None:
    subject = Subject(user_ids=["ada"])
    await suppress(maintenance, subject)
    assert await send(ingest, track(userId="ada")) == [SUPPRESSED]

    assert await suppress(maintenance, subject, lifted=True) == 1

    assert await send(ingest, track(userId="ada")) == [ACCEPTED]
    assert await suppress(maintenance, subject, lifted=True) == 0


async def test_a_rejected_event_that_turns_out_to_be_of_who_is_suppressed_is_not_replayed(
    ingest: Stub, maintenance: Stub, database: Database
) -> None:
    await send(ingest, event("track", event="Product Viewed", messageId="m1"))
    await suppress(maintenance, Subject(user_ids=["secret-ada"]))
    patch = '[{"op": "add", "path": "/userId", "value": "secret-ada"}]'
    fix = ingest_pb2.FixRejectedEventsRequest(store_uid=STORE, patch=patch)
    await ingest.FixRejectedEvents(fix, timeout=5, metadata=ALL)

    replay = ingest_pb2.ReplayRejectedEventsRequest(store_uid=STORE)
    answer = await ingest.ReplayRejectedEvents(replay, timeout=5, metadata=ALL)

    assert [one.verdict for one in answer.replayed_events] == [SUPPRESSED]
    sums = await sums_of(ingest)
    assert (sums.received_count, sums.rejected_count, sums.suppressed_count) == (1, 0, 1)
    assert await planted_in(database, "secret-ada") == []


PLANTED = ("ada-4711", "phone-4711", "ada@planted.example", "planted-order", "planted words")


def of_ada(chance: random.Random) -> bytes:
    """Something that says a lot about a person."""
    who = chance.choice([{"userId": "ada-4711"}, {"anonymousId": "phone-4711"}])
    kind = chance.choice(["page", "Products Searched", "Order Completed", "Product Viewed", "Met"])
    told: dict[str, Any] = {
        "order_id": "planted-order",
        "query": "planted words",
        "email": "ada@planted.example",
        "product_id": "tea",
        "total": 12.5,
        "currency": "EUR",
        "products": [{"product_id": "tea", "name": "Tea", "price": 2.5, "note": "planted words"}],
        "comment": "planted words",
    }
    context = {
        "traits": {"email": "ada@planted.example"},
        "page": {"path": "/of/ada-4711", "referrer": "https://planted words/"},
        "campaign": {"source": "planted words"},
        "userAgent": "Mozilla/5.0 (Linux; Android 14) Mobile planted words",
    }
    if kind == "page":
        return event("page", name="planted words", context=context, **who)
    return track(kind, properties=told, context=context, **who)


async def test_who_is_erased_leaves_nothing_but_what_totals_need_while_others_send(
    ingest: Stub, maintenance: Stub, log: Stub, database: Database
) -> None:
    chance = random.Random(5)  # noqa: S311 - nothing secret
    stop = asyncio.Event()
    sent: list[int] = []

    async def keep_sending() -> None:
        while not stop.is_set():
            events = [track(userId=f"u{chance.randrange(50)}") for _ in range(20)]
            sent.extend(await send(ingest, *events, of_ada(chance)))

    await send(ingest, identify("ada-4711", "phone-4711", traits={"name": "planted words"}))
    await send(ingest, *(of_ada(chance) for _ in range(450)))
    await send(
        ingest, track("Order Refunded", userId="till", properties={"order_id": "planted-order"})
    )
    await send(ingest, b'{"userId": "ada-4711", "nothing": tru', event("track", userId="ada-4711"))
    async with asyncio.TaskGroup() as tasks:
        writers = [tasks.create_task(keep_sending()) for _ in range(2)]
        subject = await resolve(maintenance, user_ids=["ada-4711"])
        while await suppress(maintenance, subject):
            subject = await resolve(maintenance, user_ids=["ada-4711"])
        before = await sums_of(ingest)
        erased = await erase(maintenance, subject)
        stop.set()
    assert all(writer.done() for writer in writers)

    assert erased["ingest.rejected_events"] == 2
    assert erased["ingest.events"] > 450
    assert erased["ingest.events_of_others"] == 1
    assert SUPPRESSED in sent
    assert await planted_in(database, *PLANTED) == []
    events = await read_all(log)
    after = await sums_of(ingest)
    assert len(events) == after.accepted_count >= before.accepted_count
    remnants = [one for one in events if b'"erased":true' in one.payload]
    assert len(remnants) == erased["ingest.events"]
    assert {one.name for one in remnants} == {
        *("", "(erased)", "Products Searched", "Order Completed", "Product Viewed", "Met")
    }
    for one in remnants:
        assert (one.user_id, one.anonymous_id) == ("", "")
        assert one.message_id == one.uid
        if one.name != "Order Completed":
            assert one.occur_time.seconds % 900 == 0
    orders = {
        json.loads(one.payload)["properties"]["order_id"]
        for one in events
        if one.name.startswith("Order")
    }
    assert len(orders) <= 3, "all that is told of an order at one time names it alike"
    assert await erase(maintenance, subject) == {}


async def test_changes_are_listed_in_order_and_follow_the_log(
    ingest: Stub, maintenance: Stub, log: Stub
) -> None:
    await send(ingest, *(track(userId="ada") for _ in range(5)), track(userId="grace"))
    shard = await shard_with_events(log)
    page = await log.ReadLog(ingest_pb2.ReadLogRequest(shard=shard), timeout=5)
    assert page.change_number == 0

    await erase(maintenance, Subject(user_ids=["ada"]))

    waiting = ingest_pb2.ReadLogRequest(shard=shard, after_position=6)
    waiting.wait.FromTimedelta(timedelta(seconds=20))
    told = await log.ReadLog(waiting, timeout=5)
    assert (told.change_number, list(told.events)) == (5, [])
    first = await log.ReadChanges(
        ingest_pb2.ReadChangesRequest(shard=shard, page_size=3), timeout=5
    )
    rest = await log.ReadChanges(
        ingest_pb2.ReadChangesRequest(shard=shard, after_number=3), timeout=5
    )
    changes = [*first.changes, *rest.changes]
    assert [change.number for change in changes] == [1, 2, 3, 4, 5]
    assert [change.event.position for change in changes] == [1, 2, 3, 4, 5]
    assert {change.event.user_id for change in changes} == {""}
    assert first.change_number == rest.change_number == 5


async def shard_with_events(log: Stub) -> int:
    """The one shard that has any."""
    for shard in range(SHARDS):
        page = await log.ReadLog(ingest_pb2.ReadLogRequest(shard=shard), timeout=5)
        if page.events:
            return shard
    raise AssertionError("the log is empty")


async def test_all_that_is_kept_of_a_person_is_exported_and_nothing_of_others(
    ingest: Stub, maintenance: Stub
) -> None:
    mine = [track(userId="ada", properties={"note": number}) for number in range(30)]
    await send(ingest, *mine, *(track(userId="grace") for _ in range(10)))
    assert await send(ingest, event("track", userId="ada")) == [REJECTED]
    subject = await resolve(maintenance, user_ids=["ada"])

    parts: dict[str, list[Any]] = {}
    request = ingest_pb2.ExportSubjectRequest(store_uid=STORE, subject=subject, page_size=7)
    while True:
        page = await maintenance.ExportSubject(request, timeout=5)
        for part in page.parts:
            parts.setdefault(part.name, []).extend(json.loads(row) for row in part.rows)
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token

    assert [one["payload"] for one in parts["events"]] == [json.loads(one) for one in mine]
    assert [one["user_id"] for one in parts["rejected_events"]] == ["ada"]


@pytest.mark.parametrize(
    "subject",
    [
        Subject(),
        Subject(user_ids=[""]),
        Subject(user_ids=["x" * 256]),
        Subject(user_ids=[f"u{number}" for number in range(1001)]),
    ],
)
async def test_a_subject_without_ids_or_with_too_many_is_refused(
    maintenance: Stub, subject: Subject
) -> None:
    calls: tuple[tuple[Any, Any], ...] = (
        (maintenance.ResolveSubject, ingest_pb2.ResolveSubjectRequest),
        (maintenance.SuppressSubject, ingest_pb2.SuppressSubjectRequest),
        (maintenance.EraseSubject, ingest_pb2.EraseSubjectRequest),
        (maintenance.ExportSubject, ingest_pb2.ExportSubjectRequest),
    )
    for call, request in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request(store_uid=STORE, subject=subject), timeout=5)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
