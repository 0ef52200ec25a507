"""Bad input gets a clear error and loses nothing."""

from __future__ import annotations

import asyncio
import gzip
import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.mesh.conftest import RunningMesh, Shop
from tests.mesh.test_journey import counts_within


async def test_malformed_json_is_refused_with_code_and_message(
    mesh: RunningMesh, shop: Shop
) -> None:
    async with mesh.client(shop.write_key) as client:
        answer = await client.post("/v1/batch", content=b'{"batch": [{"type": "track", ')

    assert answer.status_code == 400
    assert answer.json()["success"] is False
    assert answer.json()["code"]
    assert answer.json()["message"]


@pytest.mark.parametrize("key", ["pk_live_nobodyknowsthis", "pk_live_" + "A" * 38, ""])
async def test_a_key_that_is_unknown_or_missing_is_refused(mesh: RunningMesh, key: str) -> None:
    async with mesh.client(key) as client:
        answer = await client.post("/v1/track", json={"event": "Cart Viewed", "userId": "ada"})
        listing = await client.get("/v1/stores/sto_01h455vb4pex5vsknk084sn02q/events")

    assert answer.status_code == 401
    assert answer.json()["code"]
    assert listing.status_code == 401
    assert listing.json()["error"]["status"] == "UNAUTHENTICATED"


async def test_one_bad_event_among_100_is_told_and_99_are_stored(
    mesh: RunningMesh, shop: Shop
) -> None:
    batch = [
        {"type": "track", "event": "Cart Viewed", "userId": "ada", "messageId": f"m{number}"}
        for number in range(100)
    ]
    del batch[41]["event"]
    async with mesh.client(shop.write_key) as sender, mesh.client(shop.secret_key) as reader:
        answer = await sender.post("/v1/batch", json={"batch": batch})
        await counts_within(reader, shop, {"Cart Viewed": 99}, seconds=5)

    told = answer.json()
    assert answer.status_code == 200
    assert (told["received"], told["accepted"], told["rejected"]) == (100, 99, 1)
    (verdict,) = told["results"]
    assert (verdict["index"], verdict["code"], verdict["path"]) == (41, "name_missing", "event")


@pytest.mark.parametrize("packed", [False, True])
async def test_a_body_over_the_limit_is_refused(
    mesh: RunningMesh, shop: Shop, packed: bool
) -> None:
    event = {"event": "Cart Viewed", "userId": "ada", "filler": "x" * (9 * 1024 * 1024)}
    body = json.dumps(event).encode()
    async with mesh.client(shop.write_key) as client:
        answer = await client.post(
            "/v1/track",
            content=gzip.compress(body) if packed else body,
            headers={"Content-Encoding": "gzip"} if packed else {},
        )

    assert answer.status_code == 413
    assert answer.json()["code"]


async def test_a_forged_page_token_is_refused(mesh: RunningMesh, shop: Shop) -> None:
    async with mesh.client(shop.secret_key) as client:
        answer = await client.get(
            f"/v1/stores/{shop.store_uid}/events", params={"page_token": "Zm9yZ2Vk"}
        )

    assert answer.status_code == 400
    (info, *_) = answer.json()["error"]["details"]
    assert info["reason"] == "PAGE_TOKEN_NOT_VALID"


async def test_a_key_sees_its_own_store_only(mesh: RunningMesh, shop: Shop) -> None:
    other = await mesh.new_shop()
    async with mesh.client(shop.secret_key) as client:
        for path in ("", "/keys", "/events", "/reports/event-counts"):
            own = await client.get(f"/v1/stores/{shop.store_uid}{path}")
            foreign = await client.get(f"/v1/stores/{other.store_uid}{path}")
            assert own.status_code == 200, path
            assert foreign.status_code == 403, path
    async with mesh.client(shop.write_key) as client:
        answer = await client.get(f"/v1/stores/{shop.store_uid}/events")
        assert answer.status_code == 403


async def run_job(client: httpx.AsyncClient, job: str, body: object) -> httpx.Response:
    """The answer, once nobody else is at the job: the mesh's own clock calls it too."""
    async with asyncio.timeout(30):
        while True:
            answer = await client.post(f"/v1/cron/{job}:run", json=body)
            busy = answer.is_success and answer.json()["outcome"].endswith("_ALREADY_RUNNING")
            if not busy and answer.status_code != 503:
                return answer
            await asyncio.sleep(0.1)


async def test_jobs_run_once_over_http_with_a_cron_key_only(mesh: RunningMesh, shop: Shop) -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    asked = {"scheduled_time": (today - timedelta(days=2)).isoformat()}
    async with mesh.client(mesh.announcement["cron_key"]) as cron:
        for service in ("ingest", "query", "keys", "maintenance"):
            first = await run_job(cron, f"{service}/trim-runs", asked)
            again = await run_job(cron, f"{service}/trim-runs", asked)
            assert first.json()["outcome"] == "RUN_CRON_OUTCOME_RAN", first.text
            assert again.json()["outcome"] == "RUN_CRON_OUTCOME_ALREADY_RAN"
            assert again.json()["run"] == first.json()["run"]
        unknown = await run_job(cron, "keys/no-such-job", {})
        nowhere = await run_job(cron, "nobody/trim-runs", {})
    async with mesh.client(shop.secret_key) as client:
        forbidden = await run_job(client, "keys/trim-runs", {})

    assert (unknown.status_code, nowhere.status_code, forbidden.status_code) == (404, 404, 403)
    assert "trim-runs" in unknown.json()["error"]["message"]
