"""A store's staff tell what became of events, and mend what was rejected, over HTTP."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from tests.mesh.conftest import RunningMesh, Shop

FIX = json.dumps([{"op": "add", "path": "/properties/sku", "value": "cup"}])


async def test_an_event_that_its_plan_blocks_is_found_fixed_and_replayed(
    mesh: RunningMesh, shop: Shop
) -> None:
    store = f"/v1/stores/{shop.store_uid}"
    plan = {"event_name": "Cup Filled", "mode": "BLOCK", "schema": '{"required": ["sku"]}'}
    event = {"event": "Cup Filled", "userId": "ada", "messageId": "m1", "properties": {"n": 1.50}}
    now = datetime.now(UTC)
    span = {
        "begin_time": (now - timedelta(hours=1)).isoformat(),
        "end_time": (now + timedelta(hours=1)).isoformat(),
    }
    async with mesh.client(shop.secret_key) as staff, mesh.client(shop.write_key) as page:
        put = await staff.post(f"{store}/tracking-plans", json=plan)
        sent = await page.post("/v1/track", json=event)
        receipts = await staff.get(f"{store}/receipts", params={"message_ids": ["m1", "m2"]})
        reasons = await staff.get(f"{store}/rejected-events:count")
        listed = await staff.get(f"{store}/rejected-events", params={"code": "plan_required"})
        chosen = {"filter": {"code": "plan_required"}}
        fixed = await staff.post(f"{store}/rejected-events:fix", json=chosen | {"patch": FIX})
        replayed = await staff.post(f"{store}/rejected-events:replay", json=chosen)
        sums = await staff.get(f"{store}/verdicts", params=span)
        later = await staff.get(f"{store}/receipts", params={"message_ids": "m1"})

    assert put.json()["plan"]["version"] == 1
    assert sent.status_code == 200
    assert sent.json()["results"][0]["path"] == "properties.sku"
    (receipt,) = receipts.json()["receipts"]
    assert (receipt["verdict"], receipt["fault"]["code"]) == ("VERDICT_REJECTED", "plan_required")
    assert reasons.json()["reasons"][0]["event_count"] == "1"
    (rejected,) = listed.json()["rejected_events"]
    assert json.loads(rejected["payload"])["properties"] == {"n": 1.5}
    assert [entry["patched"] for entry in fixed.json()["fixed_events"]] == [True]
    assert [entry["verdict"] for entry in replayed.json()["replayed_events"]] == [
        "VERDICT_ACCEPTED"
    ]
    assert sums.json()["total"]["received_count"] == sums.json()["total"]["accepted_count"] == "1"
    assert later.json()["receipts"][0]["verdict"] == "VERDICT_ACCEPTED"


async def test_settings_and_plans_are_the_staffs_and_not_the_storefronts(
    mesh: RunningMesh, shop: Shop
) -> None:
    store = f"/v1/stores/{shop.store_uid}"
    settings = {"address_storage": "FULL", "daily_quota": "1"}
    plan = {"event_name": "Cup Filled", "mode": "OBSERVE", "schema": "{}"}
    async with mesh.client(shop.secret_key) as staff, mesh.client(shop.write_key) as page:
        refused = await page.post(f"{store}/event-settings", json=settings)
        put = await staff.post(f"{store}/event-settings", json=settings)
        read = await staff.get(f"{store}/event-settings")
        bad = await staff.post(f"{store}/tracking-plans", json=plan | {"schema": '{"$ref": "#"}'})
        uid = (await staff.post(f"{store}/tracking-plans", json=plan)).json()["plan"]["uid"]
        one = f"{store}/tracking-plans/{uid}"
        shown = await staff.get(one)
        deleted = await staff.delete(one)
        restored = await staff.post(f"{one}:undelete")
        listed = await staff.get(f"{store}/tracking-plans")
        catalogue = await staff.get("/v1/catalogue")
        events = [{"type": "page", "userId": "ada"}] * 3
        over_quota = await page.post("/v1/batch", json={"batch": events})

    assert refused.status_code == 403
    assert put.json() == read.json()
    assert read.json()["settings"]["address_storage"] == "ADDRESS_STORAGE_FULL"
    assert bad.status_code == 400
    assert shown.json()["plan"]["schema"] == "{}"
    assert deleted.json()["plan"]["purge_time"]
    assert "purge_time" not in restored.json()["plan"]
    assert [entry["uid"] for entry in listed.json()["plans"]] == [uid]
    assert catalogue.json()["entries"][0]["schema"]["required"] == ["query"]
    answer = over_quota.json()
    assert (answer["received"], answer["accepted"], answer["quota"]) == (3, 1, 2)
