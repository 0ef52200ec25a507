"""At most one holder in the mesh, for as long as it keeps saying so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from common.tracing import TracedRedis, tracing

log = logging.getLogger(__name__)

# `SET NX` would not do: where its answer is lost and the client repeats it, it finds
# its own key and takes it for another's.
_TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class MutexLost(Exception):
    """The mutex ran out, or was taken away, while its holder was at work."""


def open_redis(url: str) -> Redis:
    """A client that fails within a second, and once, so that its caller decides about retries."""
    client: Redis = (TracedRedis if tracing() else Redis).from_url(
        url,
        socket_timeout=1.0,
        socket_connect_timeout=1.0,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    return client


@asynccontextmanager
async def hold(redis: Redis, name: str, *, life_seconds: float) -> AsyncIterator[bool]:
    """Hold the named mutex for the block; yields whether we got it.

    It is renewed at a third of its life while the block runs. If it is lost all
    the same, the block is cancelled and `MutexLost` is raised. Two holders can
    still overlap for a moment, so what runs under it must be harmless when run
    twice. Raises `RedisError` if Redis can't be asked.
    """
    token = uuid4().hex
    milliseconds = int(life_seconds * 1000)
    if not await redis.eval(_TAKE, 1, name, token, milliseconds):
        yield False
        return
    holder = asyncio.current_task()
    assert holder is not None  # noqa: S101 - asyncio runs us
    lost = False
    ended = asyncio.Event()

    async def renew() -> None:
        nonlocal lost
        failures = 0
        while not await _is_set_within(ended, life_seconds / 3):
            try:
                held = await redis.eval(_TAKE, 1, name, token, milliseconds)
                failures = 0
            except RedisError:
                failures += 1
                held = failures < 2
            if not held and not ended.is_set():
                lost = True
                holder.cancel()
                return

    # Told to end and not cancelled: the client may swallow a cancellation in mid-command, and
    # the mutex would be renewed for ever.
    renewal = asyncio.create_task(renew())

    async def release() -> None:
        await asyncio.wait([renewal])  # Else its last renewal might come after the release.
        with suppress(RedisError):  # It runs out by itself.
            await redis.eval(_RELEASE, 1, name, token)

    try:
        yield True
    except asyncio.CancelledError:
        if lost and holder.uncancel() == 0:
            raise MutexLost(name) from None
        raise
    finally:
        ended.set()
        await asyncio.shield(release())


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
