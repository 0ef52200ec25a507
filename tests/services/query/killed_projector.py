"""Projects a log in processes that are killed, one after the other, wherever they are.

Run by a test, as a process of its own: it forks, which one with threads mustn't.
"""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import sys
from pathlib import Path
from typing import Any

from common.db import open_database
from services.query import repository
from services.query.freshness import Sightings
from services.query.projector import Projector
from shoptrail.ingest.v1 import ingest_pb2
from shoptrail.ingest.v1.event_pb2 import Event
from tests.services.query.fake_ingest import NOON, timestamp

_PAGE = 17
_LONGEST_LIFE_SECONDS = 0.1
_KILLS_A_LOOK = 5


class LogInMemory:
    """As much of Ingest's stub as the projector calls."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events

    async def ReadLog(
        self, request: ingest_pb2.ReadLogRequest, timeout: float
    ) -> ingest_pb2.ReadLogResponse:
        after = request.after_position
        if after >= len(self._events):
            await asyncio.sleep(request.wait.ToTimedelta().total_seconds())
        return ingest_pb2.ReadLogResponse(
            events=self._events[after : after + _PAGE],
            head_position=len(self._events),
            as_of_time=timestamp(NOON),
            shard_count=1,
        )


async def position_in(database_url: str) -> int:
    database = open_database(database_url)
    async with database.read() as snapshot:
        live = await repository.find_live_generation(snapshot)
        cursors = await repository.list_cursors(snapshot, live)
    await database.dispose()
    return sum(cursor.position for cursor in cursors)


async def project(database_url: str, events: list[Event], *, stop_at: int | None) -> None:
    stub: Any = LogInMemory(events)
    database = open_database(database_url)
    projecting = asyncio.create_task(Projector(database, stub, sightings=Sightings()).run())
    while stop_at is None or await position_in(database_url) < stop_at:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    projecting.cancel()
    await asyncio.wait([projecting])
    await database.dispose()


def ends_within(child: int, seconds: float) -> bool:
    """Whether the process ends by itself within a time, as one does that fails."""
    end = os.pidfd_open(child)
    try:
        return select.select([end], [], [], seconds)[0] != []
    finally:
        os.close(end)


def main() -> None:
    database_url, log, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    events = [Event.FromString(bytes.fromhex(line)) for line in log.read_text().splitlines()]
    chance = random.Random(1)  # noqa: S311 - nothing secret
    in_the_midst = 0
    for kill in range(kills):
        head = len(events) * (kill + 1) // kills
        child = os.fork()
        if not child:
            asyncio.run(project(database_url, events[:head], stop_at=None))
        assert not ends_within(child, chance.uniform(0, _LONGEST_LIFE_SECONDS))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        if kill % _KILLS_A_LOOK == 0:
            in_the_midst += asyncio.run(position_in(database_url)) < head
    asyncio.run(project(database_url, events, stop_at=len(events)))
    sys.stdout.write(f"{in_the_midst}\n")


if __name__ == "__main__":
    main()
