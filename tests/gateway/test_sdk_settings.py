"""What browser SDKs ask for before they send anything."""

from __future__ import annotations

from base64 import b64encode

import pytest

from gateway.config import Settings
from tests.gateway.conftest import WRITE_KEY, Mesh, Running

SETTINGS = f"/v1/projects/{WRITE_KEY}/settings"
SHOP = "https://shop.example"


@pytest.mark.parametrize("slash", ["", "/"])
async def test_analytics_js_is_told_its_key_and_where_to_send(
    gateway: Running, mesh: Mesh, slash: str
) -> None:
    response = await gateway.http.get(SETTINGS + slash, headers={"Origin": SHOP})

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "public, max-age=300"
    assert response.headers["access-control-allow-origin"] == SHOP
    assert response.json()["integrations"]["Segment.io"] == {
        "apiKey": WRITE_KEY,
        "apiHost": f"127.0.0.1:{gateway.port}/v1",
        "protocol": "http",
    }


@pytest.mark.parametrize(
    ("settings", "headers", "told"),
    [
        (
            {"public_url": "https://events.shop.example"},
            {"Host": "10.0.0.9"},
            {"apiHost": "events.shop.example/v1", "protocol": "https"},
        ),
        (
            {"trusted_proxies": ["127.0.0.0/8"]},
            {"Host": "events.shop.example", "X-Forwarded-Proto": "https"},
            {"apiHost": "events.shop.example/v1", "protocol": "https"},
        ),
        (
            {},
            {"Host": "events.shop.example", "X-Forwarded-Proto": "https"},
            {"apiHost": "events.shop.example/v1", "protocol": "http"},
        ),
        ({}, {"Host": "[::1]:8080"}, {"apiHost": "[::1]:8080/v1", "protocol": "http"}),
        ({}, {"Host": 'evil"/x'}, {}),
    ],
    indirect=["settings"],
)
async def test_where_to_send_is_where_browsers_find_the_gateway(
    gateway: Running, settings: Settings, headers: dict[str, str], told: dict[str, str]
) -> None:
    response = await gateway.http.get(SETTINGS, headers=headers)

    assert response.json()["integrations"]["Segment.io"] == {"apiKey": WRITE_KEY, **told}


@pytest.mark.parametrize("path", ["/sourceConfig/", "/sourceConfig"])
async def test_rudderstack_s_sdk_is_told_that_its_source_is_on(gateway: Running, path: str) -> None:
    basic = {"Authorization": f"Basic {b64encode(f'{WRITE_KEY}:'.encode()).decode()}"}

    in_header = await gateway.http.get(path, headers=basic, params={"p": "npm"})
    in_query = await gateway.http.get(path, params={"writeKey": WRITE_KEY})

    assert in_header.status_code == in_query.status_code == 200
    source = in_header.json()["source"]
    assert (source["writeKey"], source["enabled"], source["destinations"]) == (WRITE_KEY, True, [])
    assert in_header.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/projects/pk_unknown/settings", 401, "key_not_valid"),
        ("/sourceConfig/?writeKey=pk_unknown", 401, "key_not_valid"),
        ("/sourceConfig/", 401, "key_missing"),
        ("/v1/projects//settings", 404, "route_unknown"),
    ],
)
async def test_a_key_that_does_not_work_is_told_so_in_words_that_sdks_read(
    gateway: Running, path: str, status: int, code: str
) -> None:
    response = await gateway.http.get(path, headers={"Origin": SHOP})

    assert response.status_code == status
    told = response.json()
    assert told.get("code") == code or told["error"]["details"][0]["reason"].lower() == code
    assert response.headers["access-control-allow-origin"] == SHOP
    assert response.headers["cache-control"] == "no-store"


async def test_a_page_starts_while_nobody_can_say_whether_its_key_works(
    gateway: Running, mesh: Mesh
) -> None:
    await mesh.stop("keys")

    response = await gateway.http.get(SETTINGS)
    source = await gateway.http.get("/sourceConfig/", params={"writeKey": WRITE_KEY})

    assert response.json()["integrations"]["Segment.io"]["apiKey"] == WRITE_KEY
    assert response.headers["cache-control"] == "no-store"
    assert source.status_code == 200


async def test_the_gateway_says_that_it_heeds_global_privacy_control(gateway: Running) -> None:
    response = await gateway.http.get("/.well-known/gpc.json")

    assert response.headers["content-type"] == "application/json"
    assert response.json()["gpc"] is True
    assert len(response.json()["lastUpdate"]) == len("2026-01-01")
