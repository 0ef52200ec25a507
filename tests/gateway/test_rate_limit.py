"""How much a key may send."""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import RateLimited
from gateway.config import Settings
from gateway.rate_limit import RateLimit
from tests.gateway.conftest import WRITE_KEY, Clock, Mesh, Running


def batch_of(count: int) -> dict[str, Any]:
    return {"batch": [{"event": "Viewed"}] * count, "writeKey": WRITE_KEY}


def make_limit(clock: Clock, **settings: float) -> RateLimit:
    return RateLimit(monotonic=clock.monotonic, **settings)


@pytest.mark.parametrize(
    "settings", [{"key_events_per_second": 0.01, "key_event_burst": 100}], indirect=True
)
async def test_a_key_that_sends_too_much_is_told_when_it_may_again(
    gateway: Running, mesh: Mesh, settings: Settings, clock: Clock
) -> None:
    first = await gateway.http.post("/v1/batch", json=batch_of(60))
    second = await gateway.http.post("/v1/batch", json=batch_of(40))
    third = await gateway.http.post("/v1/batch", json=batch_of(1))

    assert first.headers["ratelimit-policy"] == '"key";q=100;w=10000'
    assert first.headers["ratelimit"] == '"key";r=40;t=6000'
    assert (second.status_code, second.json()["accepted"]) == (200, 40)
    assert third.status_code == 429
    assert third.json()["code"] == "rate_limited"
    assert third.json()["error"] == third.json()["message"]
    assert 99 <= int(third.headers["retry-after"]) <= 100
    assert third.headers["ratelimit"].startswith('"key";r=0;t=')
    assert "RateLimit" in third.headers["access-control-expose-headers"]
    assert sum(len(submission.payloads) for submission in mesh.appended) == 100

    clock.move_on(100)
    again = await gateway.http.post("/v1/track", json={"event": "A", "writeKey": WRITE_KEY})
    assert again.json()["accepted"] == 1


@pytest.mark.parametrize(
    "settings", [{"key_events_per_second": 0.01, "key_event_burst": 1}], indirect=True
)
async def test_each_key_has_its_own_rate(gateway: Running, mesh: Mesh, settings: Settings) -> None:
    from_header = {"Authorization": "Bearer sk_test_secret"}
    statuses = [
        (await gateway.http.post("/v1/track", json={"event": "A"}, headers=from_header)).status_code
        for _ in range(2)
    ]
    other = await gateway.http.post("/v1/batch", json=batch_of(1))

    assert (statuses, other.status_code) == ([200, 429], 200)


@pytest.mark.parametrize("settings", [{"key_events_per_second": 0}], indirect=True)
async def test_a_rate_of_0_is_no_limit(gateway: Running, settings: Settings) -> None:
    response = await gateway.http.post("/v1/batch", json=batch_of(2500))

    assert response.status_code == 200
    assert "ratelimit" not in response.headers


async def test_a_debt_is_paid_before_there_is_more(clock: Clock) -> None:
    limit = make_limit(clock, events_per_second=10, burst=10)
    limit.check("a")
    limit.take("a", 30)
    clock.move_on(2.0)

    with pytest.raises(RateLimited) as refused:
        limit.check("a")
    assert "q=10;w=1" in limit.headers("a")[0][1].decode()
    assert refused.value.metadata == {"events_per_second": "10"}
    clock.move_on(0.2)
    limit.check("a")


async def test_nobody_is_told_to_wait_for_more_than_five_minutes(clock: Clock) -> None:
    limit = make_limit(clock, events_per_second=0.001, burst=1)
    limit.take("a", 2500)

    with pytest.raises(RateLimited) as refused:
        limit.check("a")
    assert refused.value.retry_seconds == 300


async def test_of_many_keys_those_that_sent_last_are_remembered(clock: Clock) -> None:
    limit = make_limit(clock, events_per_second=0.001, burst=1)
    for number in range(10_001):
        limit.take(f"key_{number}", 1)

    limit.check("key_0")
    with pytest.raises(RateLimited):
        limit.check("key_10000")
