"""Hands facts on from the projector to who copies them, without a way through the database."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from services.query.freshness import Cursor
from services.query.projection import Fact

# So many may wait, at some 2 kB each. What is older can be read from the listing.
_MOST_FACTS = 20_000


@dataclass(frozen=True, slots=True)
class Batch:
    """What was listed in one transaction."""

    after_position: int
    cursor: Cursor
    facts: Sequence[Fact]


class Handover:
    """What has just been listed in this process, and word of it.

    Nothing relies on it: what isn't taken in time is forgotten, and stands in the listing.
    """

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._fact_count = 0
        self._news = asyncio.Event()

    def put(self, batch: Batch) -> None:
        """Offer what was committed."""
        self._batches.append(batch)
        self._fact_count += len(batch.facts)
        while self._fact_count > _MOST_FACTS:
            self._drop(self._batches[0])
        self.tell()

    def tell(self) -> None:
        """Say that there is something new, whoever listed it."""
        self._news.set()

    def take(self, listed: Cursor, after_position: int) -> Batch | None:
        """What follows a position, if it is here, and as the listing has it by the cursor.

        All of it in one, since to copy a batch costs more than its facts do.
        """
        taken: list[Batch] = []
        position = after_position
        for batch in list(self._batches):
            if batch.cursor.shard != listed.shard or batch.after_position > position:
                continue
            self._drop(batch)
            if batch.after_position < position:
                continue
            if batch.cursor.change_number != listed.change_number:
                break
            taken.append(batch)
            position = batch.cursor.position
        if not taken:
            return None
        facts = [fact for batch in taken for fact in batch.facts]
        return Batch(after_position, taken[-1].cursor, facts)

    async def wait(self, seconds: float) -> None:
        """Wait for something new, for so long at the most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        self._news.clear()

    def _drop(self, batch: Batch) -> None:
        self._batches.remove(batch)
        self._fact_count -= len(batch.facts)
