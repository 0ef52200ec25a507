"""Two stores that have everything alike, and each with its own key: neither sees the other's."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx

from tests.mesh.conftest import RunningMesh, Shop
from tests.mesh.test_journey import counts_within, list_events

# The same in both stores, whatever they are.
MESSAGE_IDS = ["m1", "m2"]
SEEN_SECONDS = 5


def order(message_id: str, total: float, user_id: str) -> dict[str, Any]:
    return {
        "type": "track",
        "event": "Order Completed",
        "userId": user_id,
        "messageId": message_id,
        "properties": {"order_id": "o-1", "total": total, "currency": "EUR"},
    }


async def fill(mesh: RunningMesh, shop: Shop, *, total: float, user_id: str) -> None:
    """Give a store two orders and an event that is rejected."""
    orders = [order(message_id, total, user_id) for message_id in MESSAGE_IDS]
    nameless = {"type": "track", "userId": user_id, "messageId": f"bad-{user_id}"}
    async with mesh.client(shop.write_key) as sender:
        answer = await sender.post("/v1/batch", json={"batch": [*orders, nameless]})
    assert (answer.json()["accepted"], answer.json()["rejected"]) == (2, 1), answer.text
    async with mesh.client(shop.secret_key) as reader:
        await counts_within(reader, shop, {"Order Completed": 2}, seconds=SEEN_SECONDS)


def hours_ago(hours: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3600 * hours))


async def ask(client: httpx.AsyncClient, shop: Shop, path: str, **asked: Any) -> dict[str, Any]:
    answer = await client.get(f"/v1/stores/{shop.store_uid}/{path}", params=asked)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_the_same_ids_in_two_stores_are_two_events_and_each_sees_its_own(
    mesh: RunningMesh,
) -> None:
    own, other = await mesh.new_shop(), await mesh.new_shop()
    await fill(mesh, own, total=1, user_id="ada")
    await fill(mesh, other, total=100, user_id="bob")

    async with mesh.client(own.secret_key) as client:
        listed = await list_events(client, own)
        assert {event["user_id"] for event in listed} == {"ada"}
        assert sorted(event["message_id"] for event in listed) == MESSAGE_IDS
        revenue = json.dumps(await ask(client, own, "reports/revenue"))
        assert "100" not in revenue
        assert (await ask(client, own, "visitor-events", user_id="bob")).get("events", []) == []
        receipts = await ask(client, own, "receipts", message_ids=[*MESSAGE_IDS, "bad-bob"])
        assert [receipt["message_id"] for receipt in receipts["receipts"]] == MESSAGE_IDS
        times = {"begin_time": hours_ago(1), "end_time": hours_ago(-1)}
        verdicts = await ask(client, own, "verdicts", **times)
        assert int(verdicts["total"]["received_count"]) == 3


async def test_what_belongs_to_another_store_is_not_found_under_its_own(
    mesh: RunningMesh,
) -> None:
    own, other = await mesh.new_shop(), await mesh.new_shop()
    await fill(mesh, own, total=1, user_id="ada")
    await fill(mesh, other, total=100, user_id="bob")
    plan = {"event_name": "Paid", "mode": "PLAN_MODE_OBSERVE", "schema": "{}"}
    async with mesh.client(other.secret_key) as client:
        base = f"/v1/stores/{other.store_uid}"
        made = await client.post(f"{base}/tracking-plans", json=plan)
        assert made.status_code == 200, made.text
        plan_uid = made.json()["plan"]["uid"]
        (rejected,) = (await ask(client, other, "rejected-events"))["rejected_events"]
        token = (await ask(client, other, "events", page_size=1))["next_page_token"]

    async with mesh.client(own.secret_key) as client:
        base = f"/v1/stores/{own.store_uid}"
        plan_path = f"{base}/tracking-plans/{plan_uid}"
        assert (await client.get(plan_path)).status_code == 404
        assert (await client.delete(plan_path)).status_code == 404
        assert (await client.post(f"{plan_path}:undelete")).status_code == 404
        chosen = {"filter": {"uids": [rejected["uid"]]}}
        patch = '[{"op": "add", "path": "/event", "value": "Stolen"}]'
        fixed = await client.post(f"{base}/rejected-events:fix", json={**chosen, "patch": patch})
        replayed = await client.post(f"{base}/rejected-events:replay", json=chosen)
        assert (fixed.status_code, fixed.json().get("fixed_events", [])) == (200, [])
        assert replayed.status_code == 200
        assert rejected["uid"] not in replayed.text
        taken = await client.get(f"{base}/events", params={"page_size": 1, "page_token": token})
        assert taken.status_code == 400

    async with mesh.client(other.secret_key) as client:
        kept = await ask(client, other, "rejected-events")
        assert kept["rejected_events"] == [rejected]
        found = await client.get(f"/v1/stores/{other.store_uid}/tracking-plans/{plan_uid}")
        assert found.json()["plan"] == made.json()["plan"]
