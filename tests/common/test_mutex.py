"""The mutex keeps others out while its holder is alive, on a real Redis."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from common.mutex import MutexLost, hold, open_redis

LIFE_SECONDS = 0.3
_TESTS = Path(__file__).parents[1]


@pytest.fixture
async def redis(redis_urls: Mapping[str, str]) -> AsyncIterator[Redis]:
    client = open_redis(redis_urls["maintenance"])
    yield client
    await client.delete("maintenance:m")
    await client.aclose()


async def test_it_has_one_holder_and_then_the_next(redis: Redis) -> None:
    async with hold(redis, "maintenance:m", life_seconds=5) as first:
        async with hold(redis, "maintenance:m", life_seconds=5) as second:
            assert (first, second) == (True, False)
    async with hold(redis, "maintenance:m", life_seconds=5) as third:
        assert third


async def test_it_is_kept_for_longer_than_its_life_while_the_holder_works(redis: Redis) -> None:
    async with hold(redis, "maintenance:m", life_seconds=LIFE_SECONDS) as held:
        assert held
        await asyncio.sleep(3 * LIFE_SECONDS)
        async with hold(redis, "maintenance:m", life_seconds=5) as other:
            assert not other


async def test_a_holder_that_lost_it_is_stopped_and_leaves_the_new_holder_alone(
    redis: Redis,
) -> None:
    with pytest.raises(MutexLost):
        async with hold(redis, "maintenance:m", life_seconds=LIFE_SECONDS):
            await redis.set("maintenance:m", "another's token")
            await asyncio.sleep(60)

    assert await redis.get("maintenance:m") == b"another's token"


async def test_a_holder_takes_it_again_where_redis_forgot_it(redis: Redis) -> None:
    async with hold(redis, "maintenance:m", life_seconds=LIFE_SECONDS):
        await redis.delete("maintenance:m")
        await asyncio.sleep(LIFE_SECONDS)
        assert await redis.exists("maintenance:m")


async def test_a_holder_that_is_cancelled_sets_it_free(redis: Redis) -> None:
    holding = asyncio.Event()

    async def work() -> None:
        async with hold(redis, "maintenance:m", life_seconds=5):
            holding.set()
            await asyncio.sleep(60)

    working = asyncio.create_task(work())
    await holding.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working

    assert not await redis.exists("maintenance:m")


async def test_nothing_renews_it_any_more_once_the_block_has_ended(redis: Redis) -> None:
    before = asyncio.all_tasks()
    chance = random.Random(5)  # noqa: S311 - no secret
    for _ in range(200):
        # So short a life that most blocks end while a renewal is on its way.
        async with hold(redis, "maintenance:m", life_seconds=0.009):
            await asyncio.sleep(chance.uniform(0, 0.009))

        assert [task for task in asyncio.all_tasks() - before if not _is_of_tests(task)] == []
        assert not await redis.exists("maintenance:m")


def _is_of_tests(task: asyncio.Task[Any]) -> bool:
    """Whether it runs a server that tests share, gRPC for one, or takes a connection to one."""
    code = getattr(task.get_coro(), "cr_code", None)  # gRPC's are compiled, and have none.
    if code is None or code.co_name == "_accept_connection2":  # asyncio's own.
        return True
    return Path(code.co_filename).is_relative_to(_TESTS)


async def test_a_redis_that_is_away_is_an_error_at_once() -> None:
    redis = open_redis("redis://127.0.0.1:1/0")
    with pytest.raises(RedisError):
        async with hold(redis, "maintenance:m", life_seconds=5):
            pass
    await redis.aclose()
