"""Wakes those who wait for the log to grow."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class News:
    """Tells the readers of this process that a shard has new events."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Event] = {}

    def tell(self, shard: int) -> None:
        """The shard has new events."""
        waiting = self._waiting.pop(shard, None)
        if waiting:
            waiting.set()

    async def wait(self, shard: int, *, seconds: float) -> None:
        """Return when the shard has new events, and at the latest after so many seconds."""
        waiting = self._waiting.setdefault(shard, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await waiting.wait()
