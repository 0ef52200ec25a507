"""A person asks; every service does its part; a receipt says so, and nothing is left."""

from __future__ import annotations

import asyncio
import io
import json
import random
import zipfile
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import grpc
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import select, update

from common.client import open_channel
from common.db import Database, database_now
from common.tls import Certificates
from common.uid import new_uid
from services.maintenance import repository
from services.maintenance.caseworker import INGEST, QUERY
from services.maintenance.jobs import CasesLate, maintenance_jobs
from services.maintenance.repository import TakenOver
from services.maintenance.tables import archive_parts, privacy_cases
from shoptrail.ingest.v1 import event_pb2
from shoptrail.maintenance.v1 import privacy_pb2
from tests.conftest import NOBODY, key_metadata
from tests.privacy.desk import (
    DONE,
    ERASE,
    EXPORT,
    FAILED,
    RUNNING,
    SUPPRESS,
    UNSUPPRESS,
    Desk,
    worker,
)
from tests.privacy.shop import (
    PLANTED,
    Shop,
    event,
    of_ada,
    of_somebody,
    others_sending,
    planted_in,
    stop_at_end,
)

ACCEPTED, SUPPRESSED = event_pb2.VERDICT_ACCEPTED, event_pb2.VERDICT_SUPPRESSED


async def test_who_is_erased_while_others_send_is_found_nowhere_and_has_a_receipt(
    shop: Shop, desk: Desk
) -> None:
    chance = random.Random(6)  # noqa: S311 - nothing secret
    await shop.send(
        event("identify", userId="ada-4711", anonymousId="phone-4711"),
        event("identify", userId="ada-4711", traits={"email": "ada@planted.example"}),
    )
    await shop.send(
        *(of_ada(chance) for _ in range(200)), *(of_somebody(chance) for _ in range(90))
    )
    await shop.send(b'{"type": "track", "userId": "ada-4711"}', b'{"userId": "ada-4711", tru')
    exported = await desk.done(EXPORT, user_id="ada-4711")
    async with others_sending(shop, chance) as got:
        working = asyncio.create_task(desk.caseworker.run())

        case = await desk.ask(ERASE, email="Ada@planted.example")
        async with asyncio.timeout(60):
            while (case := await desk.look(case)).state != DONE:
                assert case.state != FAILED, case
                await asyncio.sleep(0.05)

        await stop_at_end(working)()
    assert SUPPRESSED in got
    await shop.all_followed()

    assert await planted_in(shop, *PLANTED) == []
    assert (await desk.look(exported)).archive_part_count == 0
    counts = {one.table: one.row_count for one in case.counts}
    assert counts["ingest.events"] >= 202
    assert counts["ingest.rejected_events"] == 2
    assert counts["query.recorded_events"] >= 202
    assert counts["maintenance.archive_parts"] >= 1
    assert case.id_count == 3
    receipt = json.loads(case.receipt.content)
    assert receipt["case_uid"] == case.uid
    assert receipt["erased"] == counts
    assert receipt["create_time"] <= receipt["suppress_time"] <= receipt["verify_time"]
    check_signature(case.receipt, await key_set(desk))
    with pytest.raises(InvalidSignature):
        altered = privacy_pb2.Receipt()
        altered.CopyFrom(case.receipt)
        altered.content = altered.content.replace("202", "203", 1).replace("erasure", "erasing")
        check_signature(altered, await key_set(desk))


async def key_set(desk: Desk) -> dict[str, Any]:
    answer = await desk.stub.ListReceiptKeys(privacy_pb2.ListReceiptKeysRequest(), timeout=5)
    keys: dict[str, Any] = json.loads(answer.key_set)
    return keys


def check_signature(receipt: privacy_pb2.Receipt, keys: dict[str, Any]) -> None:
    (key,) = (key for key in keys["keys"] if key["kid"] == receipt.key_id)
    assert (key["kty"], key["crv"]) == ("OKP", "Ed25519")
    public = Ed25519PublicKey.from_public_bytes(urlsafe_b64decode(key["x"] + "="))
    public.verify(urlsafe_b64decode(receipt.signature + "=="), receipt.content.encode())


async def test_who_wants_no_more_kept_is_kept_out_until_they_want_it_again(
    shop: Shop, desk: Desk
) -> None:
    await shop.send(event("track", event="Met", userId="ada"))

    case = await desk.done(SUPPRESS, user_id="ada")

    assert case.HasField("suppress_time")
    assert not case.HasField("receipt")
    assert await shop.send(event("track", event="Met", userId="ada")) == [SUPPRESSED]
    again = await desk.done(UNSUPPRESS, user_id="ada")
    assert again.subject_hash == case.subject_hash
    assert await shop.send(event("track", event="Met", userId="ada")) == [ACCEPTED]
    await shop.all_followed()
    assert set(await planted_in(shop, '"ada"')) == {
        *("ingest.events.payload", "query.recorded_events.payload")
    }


async def test_an_archive_has_all_that_is_kept_and_says_what_it_is(shop: Shop, desk: Desk) -> None:
    sent = [event("track", event="Met", userId="ada", properties={"n": n}) for n in range(300)]
    page = event("page", name="Home", anonymousId="phone")
    await shop.send(event("identify", userId="ada", anonymousId="phone"), page, *sent)
    await shop.send(event("track", event="Met", userId="grace"), event("track", userId="ada"))
    await shop.all_followed()

    case = await desk.done(EXPORT, anonymous_id="phone")

    with zipfile.ZipFile(io.BytesIO(await desk.archive(case))) as archive:
        files = {name: archive.read(name).decode() for name in archive.namelist()}
    rows = {
        name: [json.loads(line) for line in text.splitlines()]
        for name, text in files.items()
        if name.endswith(".ndjson")
    }
    assert [one["payload"] for one in rows["events.ndjson"]][1:] == [
        json.loads(one) for one in (page, *sent)
    ]
    assert len(rows["rejected_events.ndjson"]) == 1
    assert [one["anonymous_id"] for one in rows["sessions.ndjson"]] == ["phone"]
    assert json.loads(files["ids.json"])["user_ids"] == ["ada"]
    dictionary = json.loads(files["data-dictionary.json"])
    for name, found in rows.items():
        assert {field for row in found for field in row} == set(dictionary[name]["fields"])
    assert "grace" not in "".join(files.values())


async def test_a_service_that_is_away_is_waited_for(
    shop: Shop, desk: Desk, certificates: Mapping[str, Certificates]
) -> None:
    await shop.send(event("track", event="Met", userId="ada-4711"))
    await shop.all_followed()
    async with (
        open_channel("127.0.0.1:1", INGEST, "localhost", certificates["maintenance"]) as nowhere,
        open_channel(shop.query_address, QUERY, "localhost", certificates["maintenance"]) as query,
    ):
        case = await desk.ask(ERASE, user_id="ada-4711")
        assert await worker(desk.database, nowhere, query).work_on_next()
        waiting = await desk.look(case)
        assert (waiting.state, waiting.failure) == (RUNNING, "UNAVAILABLE")
        assert not await desk.caseworker.work_on_next(), "not before its time"
    await let_time_pass(desk.database)

    assert await desk.caseworker.work_on_next()

    assert (await desk.look(case)).state == DONE
    assert await planted_in(shop, "ada-4711") == []


async def let_time_pass(database: Database) -> None:
    """All leases have ended."""
    async with database.begin() as transaction:
        now = await database_now(transaction)
        await transaction.execute(
            update(privacy_cases).values(lease_time=now - timedelta(seconds=1))
        )


async def test_a_case_whose_process_went_silent_is_taken_over_and_is_its_no_more(
    shop: Shop, desk: Desk
) -> None:
    await shop.send(event("track", event="Met", userId="ada"))
    await shop.all_followed()
    case = await desk.ask(ERASE, user_id="ada")
    async with desk.database.begin() as transaction:
        now = await database_now(transaction)
        silent = await repository.claim_case(transaction, now=now, lease=timedelta(minutes=1))
    assert silent is not None
    assert not await desk.caseworker.work_on_next()
    await let_time_pass(desk.database)

    assert await desk.caseworker.work_on_next()

    assert (await desk.look(case)).state == DONE
    with pytest.raises(TakenOver):
        async with desk.database.begin() as transaction:
            await repository.save_case(transaction, silent, lease_time=now, failure="late")


async def test_cases_are_listed_by_page_and_show_nobody_s_id(shop: Shop, desk: Desk) -> None:
    cases = [await desk.ask(SUPPRESS, user_id=f"ada-4711-{number}") for number in range(5)]
    request = privacy_pb2.ListCasesRequest(store_uid=shop.store_uid, page_size=2)
    listed: list[privacy_pb2.Case] = []
    while True:
        page = await desk.stub.ListCases(request, timeout=5, metadata=desk.metadata())
        listed += page.cases
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token

    assert [case.uid for case in listed] == [case.uid for case in reversed(cases)]
    assert all("4711" not in str(case) for case in listed)
    assert await planted_in(shop, "ada-4711") == []
    done = privacy_pb2.ListCasesRequest(store_uid=shop.store_uid, state=DONE)
    assert not (await desk.stub.ListCases(done, timeout=5, metadata=desk.metadata())).cases


@pytest.mark.parametrize(
    ("kind", "ids", "fields"),
    [
        (ERASE, {}, ["user_id"]),
        (ERASE, {"user_id": "a", "email": "b"}, ["user_id"]),
        (9, {"user_id": "a"}, ["kind"]),
        (0, {"email": "x" * 256}, ["email", "kind"]),
    ],
)
async def test_what_is_wrong_with_a_request_is_said(
    desk: Desk, kind: Any, ids: dict[str, str], fields: list[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await desk.ask(kind, **ids)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert all(field in str(caught.value.details()) for field in fields)


async def test_a_case_of_another_store_is_not_there(shop: Shop, desk: Desk) -> None:
    case = await desk.ask(EXPORT, user_id="ada")
    other = new_uid("sto")
    metadata = key_metadata("privacy:write", store_uid=other)
    calls: tuple[tuple[Any, Any], ...] = (
        (desk.stub.GetCase, privacy_pb2.GetCaseRequest),
        (desk.stub.GetArchivePart, privacy_pb2.GetArchivePartRequest),
    )
    for call, request in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request(store_uid=other, case_uid=case.uid), timeout=5, metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_archives_go_after_a_week_and_late_cases_are_reported(shop: Shop, desk: Desk) -> None:
    await shop.send(event("track", event="Met", userId="ada"))
    case = await desk.done(EXPORT, user_id="ada")
    async with desk.database.read() as snapshot:
        now = await database_now(snapshot)

    async def run(name: str, days: int) -> int:
        (job,) = (one for one in maintenance_jobs(NOBODY) if one.name == name)
        async with desk.database.begin() as transaction:
            batch = await job.run_batch(transaction, cursor="", now=now + timedelta(days=days))
        return batch.row_count

    assert await run("close-archives", 6) == 0
    assert len(await desk.archive(case)) > 100
    assert await run("close-archives", 8) == 1
    async with desk.database.read() as snapshot:
        assert not (await snapshot.execute(select(archive_parts.c.part))).all()
        assert (await snapshot.scalar(select(privacy_cases.c.sealed_subject))) is None
    assert await run("check-privacy-cases", 8) == 0
    await desk.ask(SUPPRESS, user_id="ada")
    with pytest.raises(CasesLate):
        await run("check-privacy-cases", 2)
