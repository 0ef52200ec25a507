"""Settings and plans, and what they do to a store's events."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, timedelta
from typing import Any

import grpc
import pytest

from common.db import Database
from common.page_token import PageTokens
from services.ingest.addresses import AddressStorage
from services.ingest.rule_book import RuleBook
from services.ingest.rules import DEFAULT_RULES
from services.ingest.store_rules import StoreRulesAnswers
from shoptrail.ingest.v1 import ingest_pb2 as pb
from shoptrail.ingest.v1 import store_settings_pb2, tracking_plan_pb2
from shoptrail.ingest.v1.store_settings_pb2 import StoreSettings
from tests.conftest import key_metadata
from tests.services.ingest.conftest import (
    ACCEPTED,
    ALL,
    DUPLICATE,
    NOW,
    OTHER_STORE,
    QUOTA,
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

OFF = tracking_plan_pb2.PLAN_MODE_OFF
OBSERVE = tracking_plan_pb2.PLAN_MODE_OBSERVE
BLOCK = tracking_plan_pb2.PLAN_MODE_BLOCK
NEEDS_SKU = json.dumps({"required": ["sku"]})
NEEDS_PRICE = json.dumps({"required": ["price"]})


async def put_settings(ingest: Stub, **settings: Any) -> StoreSettings:
    request = pb.PutStoreSettingsRequest(store_uid=STORE, **settings)
    return (await ingest.PutStoreSettings(request, timeout=5, metadata=ALL)).settings


async def put_plan(
    ingest: Stub,
    *,
    mode: tracking_plan_pb2.PlanMode.ValueType = BLOCK,
    schema: str = NEEDS_SKU,
    event_name: str = "Product Viewed",
) -> tracking_plan_pb2.TrackingPlan:
    request = pb.PutTrackingPlanRequest(
        store_uid=STORE, event_name=event_name, mode=mode, schema=schema
    )
    return (await ingest.PutTrackingPlan(request, timeout=5, metadata=ALL)).plan


async def get_plan(ingest: Stub, uid: str, version: int = 0) -> tracking_plan_pb2.TrackingPlan:
    request = pb.GetTrackingPlanRequest(store_uid=STORE, plan_uid=uid, version=version)
    return (await ingest.GetTrackingPlan(request, timeout=5, metadata=ALL)).plan


async def list_plans(ingest: Stub, *, show_deleted: bool = False) -> list[str]:
    request = pb.ListTrackingPlansRequest(store_uid=STORE, show_deleted=show_deleted, page_size=2)
    names: list[str] = []
    while True:
        page = await ingest.ListTrackingPlans(request, timeout=5, metadata=ALL)
        names += [plan.event_name for plan in page.plans]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return names


async def test_a_store_that_has_put_no_settings_has_the_defaults(ingest: Stub) -> None:
    request = pb.GetStoreSettingsRequest(store_uid=STORE)

    defaults = (await ingest.GetStoreSettings(request, timeout=5, metadata=ALL)).settings
    put = await put_settings(ingest, daily_quota=0)
    read = (await ingest.GetStoreSettings(request, timeout=5, metadata=ALL)).settings

    assert defaults == StoreSettings(
        address_storage=store_settings_pb2.ADDRESS_STORAGE_TRUNCATED,
        catalogue_mode=OFF,
        rejected_days=30,
    )
    assert put == read
    assert put.HasField("daily_quota")
    assert put.HasField("update_time")


async def test_an_address_is_stored_as_the_settings_say(ingest: Stub, log: Stub) -> None:
    for mode in AddressStorage:
        await put_settings(ingest, address_storage=mode.value)
        sent = submission(viewed(mode.name, context={"ip": "203.0.113.7"}), viewed(""))
        sent.client_ip, sent.confirmed = "198.51.100.9", True
        await ingest.Append(pb.AppendRequest(submissions=[sent]), timeout=5)

    found = [
        (json.loads(event.payload).get("context"), json.loads(event.enrichment).get("ip"))
        for event in await read_all(log)
    ]

    assert found == [
        ({"ip": ""}, None),
        (None, None),
        ({"ip": "203.0.113.0"}, "203.0.113.0"),
        (None, "198.51.100.0"),
        ({"ip": "203.0.113.7"}, "203.0.113.7"),
        (None, "198.51.100.9"),
    ]


async def test_an_address_in_a_rejected_event_is_reduced_too(ingest: Stub) -> None:
    sent = submission(viewed("m1", event="", context={"ip": "203.0.113.7"}), b'?"ip":"10.1.2.3"')
    sent.client_ip = "198.51.100.9"
    await ingest.Append(pb.AppendRequest(submissions=[sent]), timeout=5)

    request = pb.ListRejectedEventsRequest(store_uid=STORE)
    listed = await ingest.ListRejectedEvents(request, timeout=5, metadata=ALL)

    texts = "".join(event.payload for event in listed.rejected_events)
    assert "203.0.113.0" in texts
    assert "10.1.2.0" in texts
    assert "113.7" not in texts


async def test_a_plan_blocks_observes_or_looks_away(ingest: Stub, log: Stub) -> None:
    answers = []
    for number, mode in enumerate((BLOCK, OBSERVE, OFF)):
        await put_plan(ingest, mode=mode)
        answers.append(await ingest.Append(batch(viewed(f"m{number}")), timeout=5))
    good = await ingest.Append(batch(viewed("m3", properties={"sku": "a"})), timeout=5)

    (fault,) = answers[0].results[0].faults
    assert (fault.code, fault.path) == ("plan_required", "properties.sku")
    assert [verdicts(answer) for answer in (*answers, good)] == [
        [REJECTED],
        [ACCEPTED],
        [ACCEPTED],
        [ACCEPTED],
    ]
    observed, *others = (json.loads(event.enrichment) for event in await read_all(log))
    assert observed["violations"][0]["path"] == "properties.sku"
    assert others == [{}, {}]


async def test_the_catalogue_holds_unless_the_store_has_a_plan_of_its_own(ingest: Stub) -> None:
    await put_settings(ingest, catalogue_mode=BLOCK)
    await put_plan(ingest, mode=OFF)
    of_another_store = viewed("m9", event="Order Completed")

    answer = await ingest.Append(
        batch(viewed("m1"), viewed("m2", event="Completed Order"), viewed("m3", event="Own")),
        timeout=5,
    )
    other = await ingest.Append(batch(of_another_store, store_uid=OTHER_STORE), timeout=5)
    catalogue = await ingest.ListCatalogue(pb.ListCatalogueRequest(), timeout=5, metadata=ALL)

    assert verdicts(answer) == [ACCEPTED, REJECTED, ACCEPTED]
    assert verdicts(other) == [ACCEPTED]
    assert "Order Completed" in [entry.event_name for entry in catalogue.entries]
    assert json.loads(catalogue.entries[0].schema)["required"] == ["query"]


async def test_another_schema_is_another_version_and_old_ones_can_be_read(ingest: Stub) -> None:
    first = await put_plan(ingest)
    same = await put_plan(ingest, mode=OBSERVE)
    second = await put_plan(ingest, schema=NEEDS_PRICE)

    assert first.uid.startswith("plan_")
    assert {first.uid, same.uid, second.uid} == {first.uid}
    assert (first.version, same.version, second.version) == (1, 1, 2)
    assert (same.mode, second.schema) == (OBSERVE, NEEDS_PRICE)
    assert (await get_plan(ingest, first.uid)).schema == NEEDS_PRICE
    assert (await get_plan(ingest, first.uid, 1)).schema == NEEDS_SKU
    refusal = await refusal_of(get_plan(ingest, first.uid, 3))
    assert refusal.code() is grpc.StatusCode.NOT_FOUND


async def test_a_deleted_plan_no_longer_holds_and_comes_back(ingest: Stub) -> None:
    plan = await put_plan(ingest)
    delete = pb.DeleteTrackingPlanRequest(store_uid=STORE, plan_uid=plan.uid)
    undelete = pb.UndeleteTrackingPlanRequest(store_uid=STORE, plan_uid=plan.uid)

    deleted = (await ingest.DeleteTrackingPlan(delete, timeout=5, metadata=ALL)).plan
    again = (await ingest.DeleteTrackingPlan(delete, timeout=5, metadata=ALL)).plan
    without = await ingest.Append(batch(viewed("m1")), timeout=5)
    listed = (await list_plans(ingest), await list_plans(ingest, show_deleted=True))
    back = (await ingest.UndeleteTrackingPlan(undelete, timeout=5, metadata=ALL)).plan
    with_it = await ingest.Append(batch(viewed("m2")), timeout=5)

    life = deleted.purge_time.ToDatetime(tzinfo=UTC) - deleted.delete_time.ToDatetime(tzinfo=UTC)
    assert life == timedelta(days=30)
    assert again == deleted
    assert listed == ([], ["Product Viewed"])
    assert not back.HasField("delete_time")
    assert (verdicts(without), verdicts(with_it)) == ([ACCEPTED], [REJECTED])


async def test_putting_a_deleted_plan_brings_it_back(ingest: Stub) -> None:
    plan = await put_plan(ingest)
    delete = pb.DeleteTrackingPlanRequest(store_uid=STORE, plan_uid=plan.uid)
    await ingest.DeleteTrackingPlan(delete, timeout=5, metadata=ALL)

    back = await put_plan(ingest, schema=NEEDS_PRICE)

    assert (back.uid, back.version) == (plan.uid, 2)
    assert not back.HasField("purge_time")


async def test_plans_are_listed_by_pages_and_names_compared_byte_by_byte(ingest: Stub) -> None:
    names = ["Paid", "paid", "Paid ", "Pàid", "x" * 255]
    for name in names:
        await put_plan(ingest, event_name=name)

    assert await list_plans(ingest) == names


async def test_plans_that_are_put_at_the_same_time_are_one(ingest: Stub) -> None:
    plans = await asyncio.gather(*(put_plan(ingest) for _ in range(6)))

    assert len({plan.uid for plan in plans}) == 1
    assert {plan.version for plan in plans} == {1}


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (
            pb.PutTrackingPlanRequest(store_uid=STORE, schema="{"),
            ["event_name", "mode", "schema"],
        ),
        (
            pb.PutTrackingPlanRequest(
                store_uid=STORE, event_name="x" * 256, mode=BLOCK, schema='{"$ref":"#"}'
            ),
            ["event_name", "schema"],
        ),
    ],
)
async def test_a_plan_that_is_none_is_refused(
    ingest: Stub, request_: pb.PutTrackingPlanRequest, fields: list[str]
) -> None:
    refusal = await refusal_of(ingest.PutTrackingPlan(request_, timeout=5, metadata=ALL))

    assert refusal.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert all(field in str(refusal.details()) for field in fields)


async def test_settings_out_of_their_range_are_refused_together(ingest: Stub) -> None:
    refusal = await refusal_of(
        put_settings(ingest, daily_quota=-1, rejected_days=401, address_storage=9, catalogue_mode=9)
    )

    assert refusal.code() is grpc.StatusCode.INVALID_ARGUMENT
    for field in ("address_storage", "catalogue_mode", "daily_quota", "rejected_days"):
        assert field in str(refusal.details())


async def test_a_plan_of_another_store_or_kind_is_not_found(ingest: Stub) -> None:
    plan = await put_plan(ingest)
    of_other = key_metadata("settings:write", store_uid=OTHER_STORE)
    requests = [
        (pb.DeleteTrackingPlanRequest(store_uid=OTHER_STORE, plan_uid=plan.uid), of_other),
        (pb.DeleteTrackingPlanRequest(store_uid=STORE, plan_uid="plan_1"), ALL),
        (pb.DeleteTrackingPlanRequest(store_uid=STORE, plan_uid=STORE), ALL),
    ]

    for request, metadata in requests:
        refusal = await refusal_of(ingest.DeleteTrackingPlan(request, timeout=5, metadata=metadata))
        assert refusal.code() is grpc.StatusCode.NOT_FOUND
    refusal = await refusal_of(ingest.DeleteTrackingPlan(requests[0][0], timeout=5, metadata=ALL))
    assert refusal.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_the_quota_is_kept_to_the_event_and_duplicates_cost_nothing(
    ingest: Stub, log: Stub
) -> None:
    await put_settings(ingest, daily_quota=5)

    first = await ingest.Append(batch(viewed("a"), b"{}", viewed("b"), viewed("a")), timeout=5)
    then = await ingest.Append(
        batch(viewed("a"), viewed("c"), b"{}", viewed("d"), viewed("e"), viewed("e")), timeout=5
    )
    other = await ingest.Append(batch(viewed("a"), store_uid=OTHER_STORE), timeout=5)

    assert verdicts(first) == [ACCEPTED, REJECTED, ACCEPTED, DUPLICATE]
    assert verdicts(then) == [DUPLICATE, ACCEPTED, QUOTA, ACCEPTED, QUOTA, QUOTA]
    assert not then.results[0].faults
    assert verdicts(other) == [ACCEPTED]
    asked = pb.GetReceiptsRequest(store_uid=STORE, message_ids=["a", "d", "e", "f"])
    receipts = (await ingest.GetReceipts(asked, timeout=5, metadata=ALL)).receipts
    assert [(receipt.message_id, receipt.verdict) for receipt in receipts] == [
        ("a", ACCEPTED),
        ("d", ACCEPTED),
        ("e", QUOTA),
    ]
    sums = await sums_of(ingest)
    assert (sums.received_count, sums.accepted_count, sums.rejected_count) == (10, 4, 1)
    assert (sums.duplicate_count, sums.quota_count) == (2, 3)
    assert len(await read_all(log)) == 5


async def test_the_quota_holds_against_writers_at_the_same_time_and_begins_anew_each_day(
    ingest: Stub,
) -> None:
    await put_settings(ingest, daily_quota=30)
    batches = [batch(*(viewed(f"m{call}-{n}") for n in range(9))) for call in range(8)]

    answers = await asyncio.gather(*(ingest.Append(each, timeout=10) for each in batches))
    tomorrow = submission(viewed("tomorrow"))
    tomorrow.receive_time.FromDatetime(NOW + timedelta(days=1))
    later = await ingest.Append(pb.AppendRequest(submissions=[tomorrow]), timeout=5)

    assert sum(verdicts(answer).count(ACCEPTED) for answer in answers) == 30
    assert sum(verdicts(answer).count(QUOTA) for answer in answers) == 42
    assert verdicts(later) == [ACCEPTED]


async def test_another_replica_goes_by_new_rules_when_it_looks_again(
    database: Database,
) -> None:
    clock = 100.0
    replica = RuleBook(database, monotonic=lambda: clock)
    here = StoreRulesAnswers(
        database, rule_book=RuleBook(database), page_tokens=PageTokens(bytes(32))
    )
    request = pb.PutTrackingPlanRequest(
        store_uid=STORE, event_name="Paid", mode=BLOCK, schema=NEEDS_SKU
    )

    before = (await replica.rules_of([STORE]))[STORE]
    await here.put_plan(request)
    at_once = (await replica.rules_of([STORE]))[STORE]
    clock += 1.1
    later = (await replica.rules_of([STORE]))[STORE]
    request.mode = OFF
    await here.put_plan(request)
    clock += 1.1
    at_last = (await replica.rules_of([STORE, OTHER_STORE]))[STORE]

    assert before is at_once is DEFAULT_RULES
    assert list(later.plans) == ["Paid"]
    assert not at_last.plans
