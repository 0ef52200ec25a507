"""What all answers of the gateway have in common, whatever is asked for."""

from __future__ import annotations

import asyncio
import json
import logging
import re

import pytest

from gateway.segment import BATCH_PATHS, EVENT_PATHS
from tests.gateway.conftest import SECRET_KEY, STORE, WRITE_KEY, Mesh, Running

SHOP = "https://shop.example"
AUTHORIZED = {"Authorization": f"Bearer {SECRET_KEY}"}


@pytest.mark.parametrize(
    "path", [*EVENT_PATHS, *BATCH_PATHS, "/v1/m", "/v1/stores", "/healthz", "/nowhere"]
)
async def test_browsers_may_ask_for_any_path_without_a_key(gateway: Running, path: str) -> None:
    response = await gateway.http.options(
        path,
        headers={
            "Origin": SHOP,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-retry-count",
        },
    )

    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["access-control-allow-origin"] == SHOP
    allowed = response.headers["access-control-allow-headers"].lower().split(", ")
    assert {
        "authorization",
        "x-retry-count",
        "content-type",
        "anonymousid",
        "sentat",
        "rsa-retry-attempt",
        "rsa-retry-reason",
        "rsa-since-last-attempt",
        "rsa-since-first-attempt",
        "rsa-recovered",
        "x-write-key",
    } <= set(allowed)
    assert "POST" in response.headers["access-control-allow-methods"]
    assert int(response.headers["access-control-max-age"]) > 600


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/v1/stores", 401),
        ("GET", "/nowhere", 404),
        ("GET", "/v1/track", 404),
        ("PUT", "/v1/stores", 404),
        ("POST", "/v1/track", 400),
        ("POST", "/v1/batch", 400),
        ("POST", "/healthz", 404),
    ],
)
async def test_every_answer_may_be_read_by_browsers_and_kept_by_no_cache(
    gateway: Running, method: str, path: str, status: int
) -> None:
    response = await gateway.http.request(method, path, headers={"Origin": SHOP})

    assert response.status_code == status
    assert response.headers["access-control-allow-origin"] == SHOP
    assert response.headers["vary"] == "Origin"
    exposed = "Retry-After, RateLimit, RateLimit-Policy, X-Request-Id"
    assert response.headers["access-control-expose-headers"] == exposed
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "server" not in response.headers
    assert response.headers["x-request-id"]


async def test_a_request_id_is_kept_if_it_is_one_and_goes_along(
    gateway: Running, mesh: Mesh
) -> None:
    for given, kept in (("abc-123", True), ("a b", False), ("x" * 129, False)):
        response = await gateway.http.get(
            "/v1/stores", headers={**AUTHORIZED, "X-Request-Id": given}
        )

        answered = response.headers["x-request-id"]
        assert (answered == given) is kept
        assert mesh.keys.calls[-1][2].request_id == answered


async def test_an_error_is_told_as_aip_193_says(gateway: Running) -> None:
    response = await gateway.http.get(f"/v1/stores/{STORE}", headers=AUTHORIZED)

    assert response.status_code == 404
    assert response.json() == {
        "error": {
            "code": 404,
            "message": "There is no such store.",
            "status": "NOT_FOUND",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "NOT_FOUND",
                    "domain": "shoptrail",
                    "metadata": {"uid": STORE},
                }
            ],
        }
    }


async def test_requests_of_segment_are_counted_and_others_logged(
    gateway: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway")
    await gateway.http.post("/v1/t", json={"event": "Secret", "writeKey": WRITE_KEY})
    await gateway.http.get(f"/v1/stores/{STORE}/events", headers=AUTHORIZED)
    metrics = (await gateway.http.get("/metrics")).text

    counted = 'http_requests_total{method="POST",route="/v1/t",status="200"} 1.0'
    assert counted in metrics
    timed = (
        r'http_request_duration_seconds_count\{method="GET",route="/v1/stores/.store_uid./events"\}'
    )
    assert re.search(timed, metrics)
    assert "gateway_waiting_events 0.0" in metrics
    lines = [record for record in caplog.records if record.name == "gateway.app"]
    routes = [line.__dict__["route"] for line in lines]
    assert {"/v1/stores/{store_uid}/events", "/metrics"} <= set(routes)
    assert "/v1/t" not in routes
    logged = json.dumps([record.__dict__ for record in caplog.records], default=str)
    for private in ("Secret", WRITE_KEY, SECRET_KEY, STORE):
        assert private not in logged


@pytest.mark.parametrize(
    "odd",
    [
        b"POST /v1/t HTTP/1.1\r\nHost: x\r\nOrigin: \xff\xfe\r\nContent-Length: 1\r\n\r\n{",
        b"POST /v1/t?writeKey=%ff&x=\xff HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /v1/stores?\xff HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk_test_secret\r\n\r\n",
        b"GET /v1/%00/%2F%ff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/t HTTP/1.1\r\nHost: x\r\nContent-Length: nine\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ],
)
async def test_odd_bytes_get_an_answer_that_blames_the_sender(gateway: Running, odd: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(odd)

    status_line = await asyncio.wait_for(reader.readline(), 5)

    assert status_line.split()[1] in (b"400", b"401", b"404")
    writer.close()
    await writer.wait_closed()


async def test_a_sender_that_goes_away_leaves_nothing_behind(gateway: Running, mesh: Mesh) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"POST /v1/t HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()

    response = await gateway.http.post("/v1/t", json={"event": "A", "writeKey": WRITE_KEY})

    assert response.status_code == 200
    assert len(mesh.appended) == 1


async def test_ready_is_said_when_all_services_were_seen_and_no_more_when_draining(
    gateway: Running, mesh: Mesh
) -> None:
    response = await gateway.http.get("/readyz")
    assert response.status_code == 503
    assert response.json()["waiting_for"] == ["ingest", "keys", "maintenance", "query"]

    await mesh.stop("query")
    seeing = asyncio.create_task(gateway.readiness.see_services())
    for _ in range(200):
        response = await gateway.http.get("/readyz")
        if response.json()["waiting_for"] == ["query"]:
            break
        await asyncio.sleep(0.02)
    assert response.status_code == 503
    await mesh.start("query")
    await asyncio.wait_for(seeing, 10)
    assert (await gateway.http.get("/readyz")).status_code == 200

    gateway.readiness.start_draining()
    response = await gateway.http.get("/readyz")
    assert (response.status_code, response.json()["draining"]) == (503, True)
    assert response.headers["connection"] == "close"
    response = await gateway.http.post("/v1/t", json={"event": "A", "writeKey": WRITE_KEY})
    assert response.status_code == 200
