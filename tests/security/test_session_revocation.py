"""Sessions of the dashboard across two gateways, with the real Keys."""

from __future__ import annotations

import asyncio
import time

import httpx

from shoptrail.keys.v1 import api_key_pb2, keys_pb2
from tests.security.conftest import Town

OURS = {"X-Shoptrail-Session": "1"}
SECRET = api_key_pb2.KEY_KIND_SECRET


async def sign_in(gateway: httpx.AsyncClient, key: str) -> dict[str, str]:
    """The cookie that the gateway gives for the key, as a browser sends it."""
    opened = await gateway.post("/v1/session", json={"key": key}, headers=OURS)
    assert opened.status_code == 200
    gateway.cookies.clear()
    return {"Cookie": opened.headers["set-cookie"].partition(";")[0]}


async def statuses(town: Town, store: str, cookie: dict[str, str]) -> list[int]:
    """What both gateways answer to the session."""
    return [
        (await gateway.get(f"/v1/stores/{store}", headers=cookie)).status_code
        for gateway in town.gateways
    ]


async def seconds_until_refused(town: Town, store: str, cookie: dict[str, str]) -> float:
    began = time.monotonic()
    async with asyncio.timeout(5):
        while await statuses(town, store, cookie) != [401, 401]:
            pass
    return time.monotonic() - began


async def test_revocation_reaches_the_sessions_on_all_gateways_within_a_second(town: Town) -> None:
    store = await town.new_store()
    key = await town.new_key(store, SECRET)
    cookie = await sign_in(town.gateways[0], key.text)
    assert await statuses(town, store, cookie) == [200, 200]

    revoke = keys_pb2.RevokeKeyRequest(store_uid=store, key_uid=key.key.uid)
    await town.operator.RevokeKey(revoke, timeout=5)

    assert await seconds_until_refused(town, store, cookie) < 1


async def test_sessions_are_ended_everywhere_at_once_and_the_key_works_on(town: Town) -> None:
    store = await town.new_store()
    key = await town.new_key(store, SECRET)
    here = await sign_in(town.gateways[0], key.text)
    there = await sign_in(town.gateways[1], key.text)
    assert await statuses(town, store, there) == [200, 200]

    ended = await town.gateways[0].post("/v1/session:end-all", headers=OURS | here)

    assert ended.status_code == 200
    assert await seconds_until_refused(town, store, there) < 1
    assert await statuses(town, store, here) == [401, 401]
    again = await sign_in(town.gateways[1], key.text)
    assert await statuses(town, store, again) == [200, 200]
    entries = await town.operator.ListKeyEvents(
        keys_pb2.ListKeyEventsRequest(store_uid=store), timeout=5
    )
    assert entries.events[0].actor == f"gateway {key.key.uid}"
    assert entries.events[0].key_uid == key.key.uid


async def test_a_session_of_one_store_opens_no_other(town: Town) -> None:
    store, other = await town.new_store(), await town.new_store()
    cookie = await sign_in(town.gateways[0], (await town.new_key(store, SECRET)).text)

    assert await statuses(town, other, cookie) == [403, 403]


async def test_signing_in_on_our_own_pages_exposes_no_key(town: Town) -> None:
    store = await town.new_store()
    key = await town.new_key(store, SECRET)
    origin = str(town.gateways[0].base_url).rstrip("/")

    opened = await town.gateways[0].post(
        "/v1/session", json={"key": key.text}, headers=OURS | {"Origin": origin}
    )
    refused = await town.gateways[1].post(
        "/v1/session", json={"key": key.text}, headers=OURS | {"Origin": origin}
    )

    assert (opened.status_code, refused.status_code) == (200, 403)
    get = keys_pb2.GetKeyRequest(store_uid=store, key_uid=key.key.uid)
    await asyncio.sleep(0.5)  # Longer than it takes to report what was seen of keys.
    assert not (await town.operator.GetKey(get, timeout=5)).key.HasField("exposed_time")
