"""What the gateway tells Ingest of whoever sent a request."""

from __future__ import annotations

import pytest

from gateway.config import Settings
from shoptrail.ingest.v1 import ingest_pb2
from tests.gateway.conftest import SECRET_KEY, WRITE_KEY, Mesh, Running

BEHIND_PROXIES = {"trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8", "fd00::/8"]}


async def submit(
    gateway: Running, mesh: Mesh, headers: list[tuple[str, str]], *, key: str = WRITE_KEY
) -> ingest_pb2.Submission:
    event = {"event": "Viewed", "writeKey": key}
    response = await gateway.http.post("/v1/track", json=event, headers=headers)
    assert response.json()["accepted"] == 1
    return mesh.appended[-1]


@pytest.mark.parametrize(
    ("settings", "forwarded", "address"),
    [
        ({}, [], "127.0.0.1"),
        ({}, ["192.0.2.7"], "127.0.0.1"),
        (BEHIND_PROXIES, [], "127.0.0.1"),
        (BEHIND_PROXIES, ["192.0.2.7"], "192.0.2.7"),
        (BEHIND_PROXIES, ["203.0.113.9, 192.0.2.7, 10.1.2.3"], "192.0.2.7"),
        (BEHIND_PROXIES, ["203.0.113.9", "192.0.2.7", "10.1.2.3"], "192.0.2.7"),
        (BEHIND_PROXIES, ["192.0.2.7:4711, fd00::1"], "192.0.2.7"),
        (BEHIND_PROXIES, ["[2001:DB8::1]:4711"], "2001:db8::1"),
        (BEHIND_PROXIES, ["::ffff:192.0.2.7"], "192.0.2.7"),
        (BEHIND_PROXIES, ["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
        (BEHIND_PROXIES, ["192.0.2.7, unknown"], ""),
        (BEHIND_PROXIES, [",,"], "127.0.0.1"),
    ],
    indirect=["settings"],
)
async def test_the_address_is_the_last_that_no_trusted_proxy_has(
    gateway: Running, mesh: Mesh, settings: Settings, forwarded: list[str], address: str
) -> None:
    submission = await submit(gateway, mesh, [("X-Forwarded-For", line) for line in forwarded])

    assert submission.client_ip == address


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([], False),
        (["1"], True),
        (["0"], False),
        (["true"], False),
        (["1;x"], False),
        (["11"], False),
        (["0", "1"], True),
        (["1", "0"], True),
    ],
)
async def test_privacy_is_wanted_if_one_sec_gpc_is_exactly_1(
    gateway: Running, mesh: Mesh, values: list[str], wanted: bool
) -> None:
    submission = await submit(gateway, mesh, [("Sec-GPC", value) for value in values])

    assert submission.gpc is wanted


async def test_what_comes_with_a_secret_key_is_the_shops_own_word(
    gateway: Running, mesh: Mesh
) -> None:
    assert (await submit(gateway, mesh, [])).confirmed is False
    assert (await submit(gateway, mesh, [], key=SECRET_KEY)).confirmed is True


async def test_the_user_agent_is_passed_on_and_bounded(gateway: Running, mesh: Mesh) -> None:
    assert (await submit(gateway, mesh, [("User-Agent", "Tea/1.0")])).user_agent == "Tea/1.0"
    assert len((await submit(gateway, mesh, [("User-Agent", "x" * 9000)])).user_agent) == 1024
