"""What the processes of a mesh take, how late its figures are, and whether that grows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.drills.faults.stage import Stage

# By how much the peak of the last third may lie above that of the one before. Memory is handed
# out in pieces, and caches are emptied when they are full.
_MEMORY_SHARE, _MEMORY_BYTES = 0.1, 16 * 1024 * 1024
_FILES = 8
# They keep what they are given, and so their memory grows with it.
_SERVERS = {"MariaDB", "Redis"}
_LAG_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Process:
    """What a process takes."""

    memory_bytes: int
    file_count: int
    """Open files, of which sockets are some."""
    socket_count: int


@dataclass(frozen=True, slots=True)
class Sample:
    """All of it at one time."""

    minute: float
    """Since the load began."""
    processes: Mapping[str, Process]
    lag_events: int
    """Events of the log that Query doesn't count yet."""
    lag_seconds: float
    """How old the figures are."""
    events_a_second: float
    median_seconds: float
    p99_seconds: float
    """In which acknowledgements came, since the sample before."""
    refused: int


def look_at(pid: int) -> Process:
    """What the process takes now."""
    files = 0
    sockets = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue  # Closed meanwhile.
        files += 1
        sockets += target.startswith("socket:")
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return Process(int(line.split()[1]) * 1024, files, sockets)


def look_at_all(stage: Stage) -> dict[str, Process]:
    """What each process of the mesh takes now."""
    children = {**stage.children, "MariaDB": stage.mariadb.child, "Redis": stage.redis.child}
    return {name: look_at(child.pid) for name, child in children.items() if child.pid}


async def look_at_lag(ingest: AsyncEngine, query: AsyncEngine) -> tuple[int, float]:
    """How many events Query has not counted yet, and how many seconds old its figures are."""
    async with query.connect() as connection:
        counted, as_of = (
            await connection.execute(
                text(
                    "SELECT SUM(position), MIN(as_of_time) FROM generation_cursors"
                    " JOIN generations USING (generation) WHERE state = 2"
                )
            )
        ).one()
    async with ingest.connect() as connection:
        stored = await connection.scalar(text("SELECT SUM(position) FROM log_heads"))
    age = datetime.now(UTC) - as_of.replace(tzinfo=UTC) if as_of else None
    return int(stored or 0) - int(counted or 0), age.total_seconds() if age else 0.0


def find_growth(samples: Sequence[Sample]) -> Iterator[str]:
    """What goes on growing, each in a sentence: the last third compared with the one before."""
    third = len(samples) // 3
    before, last = samples[third : 2 * third], samples[2 * third :]
    for name in samples[-1].processes:
        memory = [
            max(sample.processes[name].memory_bytes for sample in some) for some in (before, last)
        ]
        if name not in _SERVERS and memory[1] > memory[0] * (1 + _MEMORY_SHARE) + _MEMORY_BYTES:
            yield f"{name} grew from {memory[0] / 2**20:.0f} to {memory[1] / 2**20:.0f} MiB"
        for what in ("file_count", "socket_count"):
            most = [
                max(getattr(sample.processes[name], what) for sample in some)
                for some in (before, last)
            ]
            if most[1] > most[0] + _FILES:
                yield f"{name}: {what} grew from {most[0]} to {most[1]}"
    lags = [median(sample.lag_seconds for sample in some) for some in (before, last)]
    if lags[1] > lags[0] + _LAG_SECONDS:
        yield f"figures were {lags[0]:.1f} s old, and then {lags[1]:.1f} s"
