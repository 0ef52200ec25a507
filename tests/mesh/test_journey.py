"""An event's journey through the whole mesh: sent by a real SDK, stored, counted, listed."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from tests.mesh.conftest import RunningMesh, Shop

FRESH_SECONDS = 2.0


async def count_events(client: httpx.AsyncClient, shop: Shop, **asked: str) -> dict[str, int]:
    """The report's counts by name, of the last day."""
    answer = await client.get(f"/v1/stores/{shop.store_uid}/reports/event-counts", params=asked)
    assert answer.status_code == 200, answer.text
    return {
        series["name"]: int(series["total_count"]) for series in answer.json().get("series", [])
    }


async def counts_within(
    client: httpx.AsyncClient,
    shop: Shop,
    expected: dict[str, int],
    *,
    seconds: float,
    **asked: str,
) -> None:
    """Wait until the report says what it must; fails if that takes too long."""
    began = time.monotonic()
    while (counts := await count_events(client, shop, **asked)) != expected:
        assert time.monotonic() < began + seconds, f"{counts} is not {expected}"
        await asyncio.sleep(0.05)


async def list_events(client: httpx.AsyncClient, shop: Shop, **asked: str) -> list[dict[str, Any]]:
    """All events of the listing, page by page."""
    events: list[dict[str, Any]] = []
    token = ""
    while True:
        answer = await client.get(
            f"/v1/stores/{shop.store_uid}/events", params={**asked, "page_token": token}
        )
        assert answer.status_code == 200, answer.text
        events += answer.json().get("events", [])
        token = answer.json().get("next_page_token", "")
        if not token:
            return events


async def test_what_an_unmodified_sdk_sends_is_stored_once_counted_and_listed(
    mesh: RunningMesh, shop: Shop
) -> None:
    script = Path(__file__).parent / "send_with_sdk.py"
    sender = await asyncio.create_subprocess_exec(
        sys.executable, str(script), mesh.url, shop.write_key
    )
    assert await sender.wait() == 0

    async with mesh.client(shop.secret_key) as client:
        expected = {"Product Viewed": 199, "Order Completed": 1, "identify": 1, "page": 1}
        await counts_within(client, shop, expected, seconds=FRESH_SECONDS)

        events = await list_events(client, shop, page_size="50")
        assert len(events) == len({event["uid"] for event in events}) == 202
        types = Counter(event["type"] for event in events)
        assert types == {"track": 200, "identify": 1, "page": 1}
        (order,) = await list_events(client, shop, name="Order Completed")
        assert order["user_id"] == "ada"
        assert order["payload"]["properties"]["products"][1]["price"] == 7.25
        times = [event["occur_time"] for event in events]
        assert times == sorted(times, reverse=True)


async def test_query_can_be_killed_while_events_arrive_and_counts_stay_exact(
    mesh: RunningMesh, shop: Shop
) -> None:
    sent = 0
    async with mesh.client(shop.write_key) as sender, mesh.client(shop.secret_key) as reader:
        for number in range(60):
            batch = [
                {"type": "track", "event": f"Step {step}", "anonymousId": "a"} for step in range(10)
            ]
            answer = await sender.post("/v1/batch", json={"batch": batch})
            assert answer.json()["accepted"] == 10
            sent += 1
            if number in (15, 35):
                await mesh.kill("query")

        expected = {f"Step {step}": sent for step in range(10)}
        await counts_back(reader, shop, expected)
        assert len(await list_events(reader, shop, page_size="500")) == 10 * sent


async def counts_back(client: httpx.AsyncClient, shop: Shop, expected: dict[str, int]) -> None:
    """Wait until Query is back and has caught up."""
    async with asyncio.timeout(30):
        while True:
            answer = await client.get(f"/v1/stores/{shop.store_uid}/reports/event-counts")
            if answer.status_code == 200:
                counts = await count_events(client, shop)
                assert all(counts[name] <= expected[name] for name in counts), "counted twice"
                if counts == expected:
                    return
            await asyncio.sleep(0.1)


async def test_ingest_can_be_killed_and_what_was_accepted_is_there(
    mesh: RunningMesh, shop: Shop
) -> None:
    accepted = set()
    async with mesh.client(shop.write_key) as sender, mesh.client(shop.secret_key) as reader:
        for number in range(40):
            event = {"event": "Cart Viewed", "userId": "ada", "messageId": f"m{number}"}
            while True:
                answer = await sender.post("/v1/track", json=event)
                if answer.status_code == 200:
                    break
                assert answer.status_code == 503
                assert int(answer.headers["Retry-After"]) >= 1
                await asyncio.sleep(0.1)
            assert answer.json()["rejected"] == 0
            accepted.add(event["messageId"])
            if number == 20:
                await mesh.kill("ingest")

        await counts_within(reader, shop, {"Cart Viewed": len(accepted)}, seconds=10)
        events = await list_events(reader, shop)
        assert sorted(event["message_id"] for event in events) == sorted(accepted)


async def test_the_report_follows_the_clock_of_whoever_asks(mesh: RunningMesh, shop: Shop) -> None:
    # In Nepal, 5:45 ahead of UTC, this is the first minute of 2 March. So long afterwards, only
    # the shop itself may say so.
    event = {
        "event": "Cart Viewed",
        "userId": "ada",
        "timestamp": "2026-03-01T18:15:30Z",
    }
    async with mesh.client(shop.secret_key) as reader:
        await reader.post("/v1/track", json=event)
        asked = {
            "start_time": "2026-02-28T18:15:00Z",
            "end_time": "2026-03-02T18:15:00Z",
            "time_zone": "Asia/Kathmandu",
            "interval": "DAY",
        }
        await counts_within(reader, shop, {"Cart Viewed": 1}, seconds=5, **asked)
        report_path = f"/v1/stores/{shop.store_uid}/reports/event-counts"
        answer = await reader.get(report_path, params=asked)

    report = answer.json()
    assert report["period_times"] == ["2026-02-28T18:15:00Z", "2026-03-01T18:15:00Z"]
    assert [int(count) for count in report["series"][0]["counts"]] == [0, 1]
    assert report["as_of"]["time"]
