"""What a scheduled task is: a name, a period, and work in small bounded batches."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a batch did."""

    row_count: int
    """How many rows it changed."""
    done: bool
    """Whether the job's work is done."""
    cursor: str = ""
    """Where the next batch goes on; at most 1000 characters."""


class RunBatch(Protocol):
    """Does a job's next batch in the caller's transaction, which also records it.

    At most about 1000 rows or a second of work. `cursor` is what the batch before
    returned, at first empty. `now` is the database's time.
    """

    async def __call__(
        self, transaction: AsyncConnection, *, cursor: str, now: datetime
    ) -> Batch: ...


@dataclass(frozen=True, slots=True)
class Job:
    """A task that is due at every multiple of its period since 1970-01-01T00:00:00Z."""

    name: str
    description: str
    period: timedelta
    run_batch: RunBatch

    def latest_scheduled_time(self, now: datetime) -> datetime:
        """The last scheduled time that is not after `now`."""
        return now - (now - _EPOCH) % self.period

    def is_scheduled(self, time: datetime) -> bool:
        """Whether the job is due at exactly this time."""
        return self.latest_scheduled_time(time) == time
