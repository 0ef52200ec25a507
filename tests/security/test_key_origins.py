"""Where keys may be used: publishable ones in the pages they are bound to, secret ones in none."""

from __future__ import annotations

import asyncio
from datetime import UTC

import pytest

from common.origins import host_of, is_allowed
from shoptrail.keys.v1 import api_key_pb2, key_event_pb2, keys_pb2
from tests.security.conftest import Town

# What is checked stands before any database.
on_sqlite = pytest.mark.parametrize("databases", ["sqlite"], indirect=True)

SHOP = "https://www.shop.example"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://shop.example", True),
        ("https://SHOP.example", True),
        ("https://shop.example.", True),
        ("http://shop.example:8080", True),
        ("https://www.shop.example", False),
        ("https://shop.example.evil.test", False),
        ("https://notshop.example", False),
        ("https://a.deep.test", True),
        ("https://b.a.deep.test", True),
        ("https://deep.test", False),
        ("https://evildeep.test", False),
        ("https://x.deep.test.evil.test", False),
        ("http://localhost:3000", True),
        ("http://localhost:3001", False),
        ("https://port.example", True),
        ("http://port.example", False),
        ("https://shop.example@evil.test", False),
        ("https://evil.test/https://shop.example", False),
        ("https://evil.test#shop.example", False),
        ("https://evil.test\\.shop.example", False),
        ("ftp://shop.example", False),
        ("capacitor://shop.example", False),
        ("null", False),
        ("", False),
    ],
)
def test_hosts_are_compared_label_by_label(origin: str, allowed: bool) -> None:
    hosts = ("shop.example", "*.deep.test", "localhost:3000", "port.example:443")

    assert is_allowed(host_of(origin.encode()), hosts) is allowed


@on_sqlite
async def test_a_bound_key_works_in_its_pages_only(town: Town) -> None:
    created = await town.new_key(await town.new_store(), allowed_origins=["*.shop.example"])

    async def status(**headers: str) -> int:
        return (await town.send(0, created.text, **headers)).status_code

    elsewhere = await town.send(0, created.text, Origin="https://x.shop.example.evil.test")
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (403, "origin_not_allowed")
    assert await status(Origin=SHOP) == 200
    assert await status(Origin="null") == 403
    assert await status() == 403
    # Images are asked for without an Origin.
    assert await status(Referer=f"{SHOP}/basket?q=https://evil.test/") == 200
    assert await status(Referer=f"https://evil.test/?{SHOP}") == 403
    assert await status(Origin="https://evil.test", Referer=f"{SHOP}/") == 403


@on_sqlite
async def test_binding_a_key_takes_effect_within_a_second(town: Town) -> None:
    store_uid = await town.new_store()
    created = await town.new_key(store_uid)
    assert await town.statuses(created.text) == [200, 200]
    request = keys_pb2.UpdateKeyRequest(
        store_uid=store_uid,
        key_uid=created.key.uid,
        allowed_origins=keys_pb2.OriginList(hosts=["shop.example"]),
    )

    await town.operator.UpdateKey(request, timeout=5)

    assert await town.seconds_until(403, created.text) < 1


@on_sqlite
async def test_a_key_that_must_stay_secret_is_refused_from_a_browser_flagged_and_recorded(
    town: Town,
) -> None:
    store_uid = await town.new_store()
    created = await town.new_key(store_uid, api_key_pb2.KEY_KIND_SECRET)
    aim = keys_pb2.GetKeyRequest(store_uid=store_uid, key_uid=created.key.uid)
    trail = keys_pb2.ListKeyEventsRequest(store_uid=store_uid)

    event = await town.send(0, created.text, Origin=SHOP)
    listing = await town.gateways[0].get(
        f"/v1/stores/{store_uid}/keys",
        headers={"Authorization": f"Bearer {created.text}", "Origin": SHOP},
    )
    without_origin = await town.send(0, created.text)
    async with asyncio.timeout(5):
        key = api_key_pb2.ApiKey()
        while not (key.HasField("exposed_time") and key.HasField("last_used_time")):
            key = (await town.operator.GetKey(aim, timeout=5)).key  # Reported in a moment.
    recorded = (await town.operator.ListKeyEvents(trail, timeout=5)).events[0]

    assert (event.status_code, event.json()["code"]) == (403, "secret_key_exposed")
    assert listing.status_code == 403
    assert listing.json()["error"]["details"][0]["reason"] == "SECRET_KEY_EXPOSED"
    assert without_origin.status_code == 200
    assert recorded.action == key_event_pb2.KEY_EVENT_ACTION_EXPOSE_KEY
    assert (recorded.key_uid, recorded.detail) == (created.key.uid, "www.shop.example")
    assert key.last_used_time.ToDatetime(UTC) > key.create_time.ToDatetime(UTC)
    assert key.last_sdk.startswith("python-httpx/")
