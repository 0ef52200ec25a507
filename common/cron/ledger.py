"""The ledger's SQL: which scheduled times ran, and who may write for the one that is running.

Functions take the caller's transaction and never end it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from common.cron.tables import cron_fences, cron_runs
from common.uid import new_uid


class State(IntEnum):
    """How far a run is, by the names of `RunState` in the proto."""

    RUNNING = 1
    SUCCEEDED = 2
    FAILED = 3
    SUPERSEDED = 4


class Fenced(Exception):
    """A later attempt has taken the run over: this one may not write any more."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run, as the ledger has it."""

    id: int
    uid: str
    job: str
    scheduled_time: datetime
    state: State
    fence: int
    lease_time: datetime
    attempt_count: int
    row_count: int
    progress: str
    caller: str
    start_time: datetime
    end_time: datetime | None


_COLUMNS = tuple(cron_runs.c[name] for name in Run.__dataclass_fields__)


async def lock_fence(transaction: AsyncConnection, job: str) -> int:
    """The job's fence, locked until the transaction ends: claims of a job come one by one."""
    statement = select(cron_fences.c.fence).where(cron_fences.c.job == job).with_for_update()
    fence = await transaction.scalar(statement)
    if fence is None:
        try:
            async with transaction.begin_nested():
                await transaction.execute(insert(cron_fences).values(job=job, fence=0))
        except IntegrityError:
            pass  # Another made it meanwhile.
        fence = await transaction.scalar(statement)
    return int(fence or 0)


async def find_run(transaction: AsyncConnection, job: str, scheduled_time: datetime) -> Run | None:
    """The run of a scheduled time, if it has one."""
    statement = select(*_COLUMNS).where(
        cron_runs.c.job == job, cron_runs.c.scheduled_time == scheduled_time
    )
    return _as_run((await transaction.execute(statement)).one_or_none())


async def find_run_at_work(transaction: AsyncConnection, job: str, now: datetime) -> Run | None:
    """The job's run whose lease has not ended, if there is one."""
    statement = (
        select(*_COLUMNS)
        .where(
            cron_runs.c.job == job,
            cron_runs.c.state == State.RUNNING,
            cron_runs.c.lease_time > now,
        )
        .limit(1)
    )
    return _as_run((await transaction.execute(statement)).one_or_none())


async def claim_run(
    transaction: AsyncConnection,
    *,
    job: str,
    scheduled_time: datetime,
    fence: int,
    caller: str,
    now: datetime,
    lease: timedelta,
) -> Run:
    """Begin the run, or take it over from an attempt that ended early.

    `fence` is what `lock_fence` returned. Runs of earlier scheduled times that
    were never finished are closed: this one does their work too. An attempt at a
    later one that has been silent for its lease may not write any more either.
    """
    await transaction.execute(
        update(cron_fences).where(cron_fences.c.job == job).values(fence=fence + 1)
    )
    await transaction.execute(
        update(cron_runs)
        .where(
            cron_runs.c.job == job,
            cron_runs.c.scheduled_time < scheduled_time,
            cron_runs.c.state.in_([State.RUNNING, State.FAILED]),
        )
        .values(state=State.SUPERSEDED, end_time=now)
    )
    await transaction.execute(
        update(cron_runs)
        .where(
            cron_runs.c.job == job,
            cron_runs.c.scheduled_time > scheduled_time,
            cron_runs.c.state == State.RUNNING,
        )
        .values(fence=fence + 1)
    )
    attempt = {"state": State.RUNNING, "fence": fence + 1, "lease_time": now + lease}
    known = await find_run(transaction, job, scheduled_time)
    if known is None:
        await transaction.execute(
            insert(cron_runs).values(
                uid=new_uid("run"),
                job=job,
                scheduled_time=scheduled_time,
                attempt_count=1,
                row_count=0,
                progress="",
                caller=caller,
                start_time=now,
                **attempt,
            )
        )
    else:
        await transaction.execute(
            update(cron_runs)
            .where(cron_runs.c.id == known.id)
            .values(attempt_count=known.attempt_count + 1, caller=caller, end_time=None, **attempt)
        )
    run = await find_run(transaction, job, scheduled_time)
    if run is None:
        raise LookupError("a claimed run is not in the ledger")
    return run


async def check_fence(
    transaction: AsyncConnection, run: Run, *, now: datetime, lease: timedelta
) -> None:
    """Lengthen the lease, and lock the run for this transaction.

    Raises `Fenced` if another attempt holds the run. Comes first in every
    transaction of a run, so that a holder that was paused cannot write.
    """
    await _update_own(transaction, run, lease_time=now + lease)


async def record_batch(
    transaction: AsyncConnection, run: Run, *, row_count: int, progress: str
) -> None:
    """Note what a batch did, in its own transaction."""
    await _update_own(
        transaction, run, row_count=cron_runs.c.row_count + row_count, progress=progress
    )


async def end_run(transaction: AsyncConnection, run: Run, state: State, now: datetime) -> None:
    """Close the run. Raises `Fenced` if another attempt holds it."""
    await _update_own(transaction, run, state=state, lease_time=now, end_time=now)


async def release_run(transaction: AsyncConnection, run: Run, now: datetime) -> None:
    """Let the next call go on with the run at once. Raises `Fenced` as above."""
    await _update_own(transaction, run, lease_time=now)


async def list_runs(
    transaction: AsyncConnection,
    *,
    job: str,
    before: tuple[datetime, int] | None,
    limit: int,
) -> list[Run]:
    """Runs of a job, or of all if it is empty, the latest scheduled time first."""
    order = tuple_(cron_runs.c.scheduled_time, cron_runs.c.id)
    statement = select(*_COLUMNS).order_by(cron_runs.c.scheduled_time.desc(), cron_runs.c.id.desc())
    if job:
        statement = statement.where(cron_runs.c.job == job)
    if before is not None:
        statement = statement.where(order < tuple_(*before))
    rows = await transaction.execute(statement.limit(limit))
    return [run for row in rows if (run := _as_run(row))]


async def last_run(transaction: AsyncConnection, job: str) -> Run | None:
    """The run of the job's latest scheduled time that has one."""
    found = await list_runs(transaction, job=job, before=None, limit=1)
    return found[0] if found else None


async def last_success_time(transaction: AsyncConnection, job: str) -> datetime | None:
    """The latest scheduled time of the job whose run succeeded."""
    found: datetime | None = await transaction.scalar(
        select(func.max(cron_runs.c.scheduled_time)).where(
            cron_runs.c.job == job, cron_runs.c.state == State.SUCCEEDED
        )
    )
    return found


async def delete_runs(
    transaction: AsyncConnection, *, scheduled_before: datetime, limit: int
) -> int:
    """Remove the records of runs that were scheduled before a time; returns how many."""
    due = (
        select(cron_runs.c.id)
        .where(cron_runs.c.scheduled_time < scheduled_before)
        .order_by(cron_runs.c.id)
        .limit(limit)
    )
    ids = (await transaction.execute(due)).scalars().all()
    if ids:
        await transaction.execute(delete(cron_runs).where(cron_runs.c.id.in_(ids)))
    return len(ids)


async def _update_own(transaction: AsyncConnection, run: Run, **values: Any) -> None:
    updated = await transaction.execute(
        update(cron_runs)
        .where(
            cron_runs.c.id == run.id,
            cron_runs.c.fence == run.fence,
            cron_runs.c.state == State.RUNNING,
        )
        .values(**values)
    )
    if updated.rowcount != 1:
        raise Fenced(run.uid)


def _as_run(row: Row[Any] | None) -> Run | None:
    if row is None:
        return None
    fields = dict(row._mapping)
    return Run(**{**fields, "state": State(fields["state"])})
