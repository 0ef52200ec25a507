"""A scheduled time runs once, whoever calls, crashes, pauses or loses the mutex meanwhile.

Each drill calls from all sides until the scheduled time has run, breaks something on the
way, and then counts rows that would be there twice if work had been done twice. `make drills`
runs them at their whole length, `make test` a short version.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime

import grpc
import pytest

from deploy.local.processes import Child
from shoptrail.maintenance.v1 import maintenance_pb2 as pb
from tests.drills.figures import FULL, Figures
from tests.drills.run_once.replica import PERIOD
from tests.drills.run_once.stage import (
    ALREADY_RAN,
    ALREADY_RUNNING,
    RAN,
    Replica,
    Stage,
    Stopwatch,
    Work,
)

pytestmark = pytest.mark.timeout(900)

REPLICAS = 8 if FULL else 4
CROWD_SLOTS = 1_000 if FULL else 100
UNGUARDED_SLOTS = 60 if FULL else 15
KILLS = 20 if FULL else 1
ROUNDS = 5 if FULL else 1

# The longest that a take-over may take beyond the lease.
TOLERANCE_SECONDS = 5.0

BRIEF = Work(batch_count=3, batch_seconds=0, lease_seconds=2)
LONG = Work(batch_count=40, batch_seconds=0.02, lease_seconds=2)
# It has so many short batches that it is soon found outside of a transaction.
NIMBLE = Work(batch_count=500, batch_seconds=0, lease_seconds=2)
# Its lease is about as long as the database listens to a transaction that is silent, which
# is 10 s: nobody can have the run's row before.
SLOW = Work(batch_count=20, batch_seconds=0.1, lease_seconds=8)


def scheduled_times(count: int) -> list[datetime]:
    """As many of the job's latest scheduled times, the oldest first."""
    latest = datetime.now(UTC).replace(second=0, microsecond=0)
    return [latest - number * PERIOD for number in reversed(range(count))]


async def call_from_all_sides(
    replicas: Sequence[Replica], times: Sequence[datetime], *, jitter_seconds: float
) -> int:
    """Call each replica twice at once for each time; returns how many calls said that they ran."""
    chance = random.Random(7)  # noqa: S311 - no secret

    async def call(replica: Replica, time: datetime, after_seconds: float) -> bool:
        await asyncio.sleep(after_seconds)
        return (await replica.run(time)).outcome == RAN

    ran_count = 0
    for time in times:
        ran = await asyncio.gather(
            *(
                call(replica, time, chance.uniform(0, jitter_seconds))
                for replica in replicas
                for _ in range(2)
            )
        )
        ran_count += sum(ran)
    return ran_count


async def settle(
    stage: Stage,
    figures: Figures,
    drill: str,
    *,
    times: Sequence[datetime],
    work: Work,
    call_count: int,
    take_over_seconds: float | None = None,
) -> None:
    """Check that every batch of every scheduled time was done once, and note the figures."""
    count = await stage.count(times, work)
    assert len(count.attempt_counts) == count.slot_count
    assert count.once_count == count.slot_count
    if take_over_seconds is not None:
        assert take_over_seconds <= work.lease_seconds + TOLERANCE_SECONDS
    figures.add(
        drill,
        len(times),
        call_count,
        count.once_count,
        sum(count.attempt_counts.values()),
        "" if take_over_seconds is None else f"{take_over_seconds:.1f} s",
        f"{work.lease_seconds:g} s",
    )


@pytest.mark.parametrize("jitter_seconds", [0.0, 0.05])
async def test_many_replicas_that_are_called_at_once_run_each_scheduled_time_once(
    stage: Stage, figures: Figures, jitter_seconds: float
) -> None:
    # Jitter takes its time: fewer will do.
    times = scheduled_times(CROWD_SLOTS if jitter_seconds == 0 else CROWD_SLOTS // 5)
    async with stage.replicas(REPLICAS, BRIEF) as replicas:
        ran_count = await call_from_all_sides(replicas, times, jitter_seconds=jitter_seconds)
        call_count = sum(replica.call_count for replica in replicas)

    assert ran_count == len(times)
    drill = f"{REPLICAS} replicas, each called twice within {jitter_seconds * 1000:g} ms"
    await settle(stage, figures, drill, times=times, work=BRIEF, call_count=call_count)


async def test_the_drill_finds_that_a_mutex_alone_runs_scheduled_times_more_than_once(
    stage: Stage, figures: Figures
) -> None:
    times = scheduled_times(UNGUARDED_SLOTS)
    unguarded = replace(BRIEF, guard="mutex")
    async with stage.replicas(REPLICAS, unguarded) as replicas:
        ran_count = await call_from_all_sides(replicas, times, jitter_seconds=0.05)
        call_count = sum(replica.call_count for replica in replicas)

    count = await stage.count(times, unguarded)
    assert count.once_count < count.slot_count
    assert ran_count > len(times)
    drill = "the same within 50 ms with a mutex only, which must fail"
    figures.add(drill, len(times), call_count, count.once_count, ran_count, "", "2 s")


async def test_a_holder_that_is_killed_in_mid_batch_is_taken_over_within_lease_and_5_s(
    stage: Stage, figures: Figures
) -> None:
    times = scheduled_times(KILLS)
    chance = random.Random(11)  # noqa: S311 - no secret
    longest, call_count = 0.0, 0
    async with stage.replica(LONG) as survivor:
        for time in times:
            async with stage.replica(LONG) as holder:
                doomed = asyncio.create_task(holder.run(time))
                await stage.wait_for_effects(time, chance.randrange(1, LONG.batch_count - 10))

                holder.signal(signal.SIGKILL)
                since = Stopwatch()
                others = asyncio.create_task(survivor.run_until_done(time))
                with pytest.raises(grpc.aio.AioRpcError):
                    await doomed
                await stage.wait_for_effects(time, await stage.effect_count(time) + 1)
                longest = max(longest, since.seconds)

                assert (await others).run.attempt_count == 2
        call_count = survivor.call_count + len(times)

    await settle(
        stage,
        figures,
        "holder killed with SIGKILL in mid-batch",
        times=times,
        work=LONG,
        call_count=call_count,
        take_over_seconds=longest,
    )


@pytest.mark.parametrize("in_transaction", [False, True] if FULL else [False])
async def test_a_holder_that_is_stopped_past_its_lease_cannot_write_when_it_is_continued(
    stage: Stage, figures: Figures, in_transaction: bool
) -> None:
    work = SLOW if in_transaction else NIMBLE
    times = scheduled_times(ROUNDS)
    chance = random.Random(13)  # noqa: S311 - no secret
    longest, call_count = 0.0, 0
    for time in times:
        async with stage.replicas(2, work) as (holder, other):
            running = asyncio.create_task(holder.run(time))
            await stage.wait_for_effects(time, 3)
            while True:
                # A batch is seen when it is over. A pause of the same length comes after it, in
                # which nothing is open, and then the next batch: so we look for that far.
                await asyncio.sleep(chance.uniform(0, 2 * work.batch_seconds))
                holder.signal(signal.SIGSTOP)
                if await stage.holds_its_row(time) is in_transaction:
                    break
                holder.signal(signal.SIGCONT)
                await stage.wait_for_effects(time, await stage.effect_count(time) + 1)
            since = Stopwatch()
            at_stop = await stage.effect_count(time)
            others = asyncio.create_task(other.run_until_done(time))
            await stage.wait_for_effects(time, at_stop + 1)
            longest = max(longest, since.seconds)
            answer = await others

            holder.signal(signal.SIGCONT)
            awoken = await running
            call_count += other.call_count + 1
        assert (answer.outcome, answer.run.attempt_count) == (RAN, 2)
        assert awoken.outcome == ALREADY_RUNNING

    await settle(
        stage,
        figures,
        f"holder stopped with SIGSTOP {'in a transaction' if in_transaction else 'between two'}",
        times=times,
        work=work,
        call_count=call_count,
        take_over_seconds=longest,
    )


async def test_a_holder_that_is_told_to_stop_hands_over_without_waiting_for_the_lease(
    stage: Stage, figures: Figures
) -> None:
    work = replace(LONG, lease_seconds=30)
    times = scheduled_times(ROUNDS)
    longest, call_count = 0.0, 0
    for time in times:
        async with stage.replicas(2, work) as (holder, other):
            running = asyncio.create_task(holder.run(time))
            await stage.wait_for_effects(time, 10)
            holder.signal(signal.SIGTERM)
            since = Stopwatch()
            others = asyncio.create_task(other.run_until_done(time))
            stopped = await running
            await stage.wait_for_effects(time, stopped.run.row_count + 1)
            longest = max(longest, since.seconds)
            answer = await others
            assert await holder.process.wait() == 0
            call_count += other.call_count + 1
        assert stopped.outcome == pb.RUN_CRON_OUTCOME_CONTINUES
        assert answer.run.attempt_count == 2

    assert longest <= TOLERANCE_SECONDS
    await settle(
        stage,
        figures,
        "holder told to end with SIGTERM",
        times=times,
        work=work,
        call_count=call_count,
        take_over_seconds=longest,
    )


def send(server: Child, number: signal.Signals) -> None:
    """Send the server's process a signal."""
    assert server.pid is not None
    os.kill(server.pid, number)


async def run_with_fault(
    stage: Stage, time: datetime, replicas: Sequence[Replica], *, kill: Child
) -> None:
    """Run on the first replica, kill a server in mid-run, and call all until it is done."""
    callers = [asyncio.create_task(replicas[0].run_until_done(time))]
    await stage.wait_for_effects(time, 10)
    send(kill, signal.SIGKILL)
    callers += [asyncio.create_task(other.run_until_done(time)) for other in replicas[1:]]
    await asyncio.gather(*callers)


async def test_a_redis_that_comes_back_empty_in_mid_run_lets_nobody_run_it_again(
    stage: Stage, figures: Figures
) -> None:
    times = scheduled_times(ROUNDS)
    async with stage.replicas(3, LONG) as replicas:
        for time in times:
            await run_with_fault(stage, time, replicas, kill=stage.redis.child)
        call_count = sum(replica.call_count for replica in replicas)

    drill = "Redis killed in mid-run, back empty"
    await settle(stage, figures, drill, times=times, work=LONG, call_count=call_count)


async def test_a_database_that_is_killed_in_mid_run_loses_and_repeats_nothing(
    stage: Stage, figures: Figures
) -> None:
    times = scheduled_times(ROUNDS)
    async with stage.replicas(3, LONG) as replicas:
        for time in times:
            await run_with_fault(stage, time, replicas, kill=stage.mariadb.child)
        call_count = sum(replica.call_count for replica in replicas)

    drill = "MariaDB killed in mid-run, restarted"
    await settle(stage, figures, drill, times=times, work=LONG, call_count=call_count)


async def test_a_redis_that_failed_over_without_its_keys_lets_nobody_run_it_beside_the_holder(
    stage: Stage, figures: Figures
) -> None:
    times = scheduled_times(ROUNDS)
    async with AsyncExitStack() as stack:
        # The holder still talks to the old primary, the others to one that knows of no mutex.
        holder = await stack.enter_async_context(stage.replica(LONG))
        others = [
            await stack.enter_async_context(stage.replica(LONG, redis=stage.other_redis))
            for _ in range(2)
        ]
        beside = []
        for time in times:
            running = asyncio.create_task(holder.run(time))
            await stage.wait_for_effects(time, 5)
            beside += await asyncio.gather(*(other.run(time) for other in others))
            assert (await running).outcome == RAN
            beside += await asyncio.gather(*(other.run(time) for other in others))
        call_count = len(times) + len(beside)

    assert {answer.outcome for answer in beside} == {ALREADY_RUNNING, ALREADY_RAN}
    drill = "Redis failed over, and the new primary knows of no mutex"
    await settle(stage, figures, drill, times=times, work=LONG, call_count=call_count)


@pytest.mark.parametrize("fault", ["gone", "silent"] if FULL else ["gone"])
async def test_without_redis_jobs_are_refused_at_once_and_caught_up_afterwards(
    stage: Stage, figures: Figures, fault: str
) -> None:
    (time,) = scheduled_times(1)
    async with stage.replicas(2, BRIEF) as replicas:
        if fault == "gone":
            await stage.redis.child.stop(patience_seconds=5)
        else:
            send(stage.redis.child, signal.SIGSTOP)
        try:
            since = Stopwatch()
            refusals = await asyncio.gather(
                *(replica.run(time) for replica in replicas), return_exceptions=True
            )
            seconds = since.seconds
            meanwhile = await stage.effect_count(time)
        finally:
            if fault == "gone":
                await stage.redis.child.start()
            else:
                send(stage.redis.child, signal.SIGCONT)
        await asyncio.gather(*(replica.run_until_done(time) for replica in replicas))
        call_count = sum(replica.call_count for replica in replicas)

    for refusal in refusals:
        assert isinstance(refusal, grpc.aio.AioRpcError)
        assert refusal.code() is grpc.StatusCode.UNAVAILABLE
    assert meanwhile == 0
    # A silent Redis costs its time-out of 1 s, at each of the channel's three attempts.
    assert seconds < (2 if fault == "gone" else 6)
    drill = f"Redis {fault}: refused after {seconds:.1f} s, caught up when it was back"
    await settle(stage, figures, drill, times=[time], work=BRIEF, call_count=call_count)


async def hours_ahead(environment: Mapping[str, str]) -> float:
    """By how much the clock of a process is ahead that is started with these variables."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", "import time; print(time.time())"),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return (float(output) - datetime.now(UTC).timestamp()) / 3600


async def test_replicas_whose_clocks_are_an_hour_apart_agree_on_what_is_due(
    stage: Stage, figures: Figures, libfaketime: str
) -> None:
    times = scheduled_times(40 if FULL else 10)
    clocks = [
        {"LD_PRELOAD": libfaketime, "FAKETIME": offset}
        for offset in ("+0", "+1h", "-1h", "+10m x1.05")
    ]
    assert [round(await hours_ahead(clock), 1) for clock in clocks] == [0.0, 1.0, -1.0, 0.2]
    async with AsyncExitStack() as stack:
        replicas = [
            await stack.enter_async_context(stage.replica(BRIEF, environment=clock))
            for clock in clocks
        ]
        ran_count = await call_from_all_sides(replicas, times, jitter_seconds=0.02)
        before = datetime.now(UTC)
        unnamed = await asyncio.gather(*(replica.run(None) for replica in replicas))
        after = datetime.now(UTC)
        call_count = sum(replica.call_count for replica in replicas)

    asked_for = {
        answer.run.scheduled_time.ToDatetime(tzinfo=UTC)
        for answer in unnamed
        if answer.HasField("run")
    }
    assert all(before - PERIOD < time <= after for time in asked_for)
    assert ran_count == len(times)
    drill = "clocks right, an hour ahead, an hour behind, and 5 % too fast"
    await settle(stage, figures, drill, times=times, work=BRIEF, call_count=call_count)
