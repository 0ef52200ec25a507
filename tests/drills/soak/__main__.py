"""Sends events at a share of what a mesh can take for a long time, and watches what grows.

`make soak` runs it: a mesh of real processes with MariaDB. What it took is drawn into
docs/images/soak.png and stands in docs/reliability.md.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from tests.drills.faults.drill import SEED
from tests.drills.faults.shoppers import percentile
from tests.drills.faults.stage import Shop, Stage, staged
from tests.drills.figures import Figures, replace_block
from tests.drills.soak.senders import Crowd
from tests.drills.soak.vitals import Sample, find_growth, look_at_all, look_at_lag

_DOCUMENTS = Path(__file__).parents[3] / "docs"
_CAPACITY_SECONDS = 30.0
_SAMPLE_SECONDS = 5.0
_CATCH_UP_SECONDS = 600
_HELD = 0.98
_MIB = 2**20
# A database that is as large as what half an hour brings: with less, it is soon busy with reading
# and writing pages, and the half hour shows that and nothing else.
_DATABASE_OPTIONS = ("--innodb-buffer-pool-size=8G", "--innodb-log-file-size=2G")
# So little that the half hour's events fill it: with more, Query would grow until it is full.
_OF_QUERY = {"QUERY_COLUMNS_MEMORY_MIB": "128"}


async def measure_capacity(stage: Stage, shop: Shop, query: AsyncEngine) -> tuple[float, int]:
    """How many events a second are taken at the most and counted, and how many that were."""
    crowd = Crowd(port=stage.port, write_key=shop.write_key, seed=SEED)
    began = time.monotonic()
    await crowd.send(_CAPACITY_SECONDS, rate=None)
    await wait_until_counted(stage, query)
    acked = crowd.take_tally().acked
    return acked / (time.monotonic() - began), acked


async def wait_until_counted(stage: Stage, query: AsyncEngine) -> None:
    """Return once Query has counted all that there is."""
    async with asyncio.timeout(_CATCH_UP_SECONDS):
        while (await look_at_lag(stage.root, query))[0]:  # noqa: ASYNC110 - a database has no event
            await asyncio.sleep(0.2)


async def soak(
    stage: Stage, shop: Shop, query: AsyncEngine, *, rate: float, minutes: float
) -> tuple[list[Sample], int]:
    """Send at the rate for so long; what was seen every few seconds, and how much was accepted."""
    crowd = Crowd(port=stage.port, write_key=shop.write_key, seed=SEED + 1)
    sending = asyncio.create_task(crowd.send(60 * minutes, rate=rate))
    began = before = time.monotonic()
    samples: list[Sample] = []
    acked = 0
    while not sending.done():
        await asyncio.wait([sending], timeout=_SAMPLE_SECONDS)
        now = time.monotonic()
        tally = crowd.take_tally()
        acked += tally.acked
        lag_events, lag_seconds = await look_at_lag(stage.root, query)
        sample = Sample(
            minute=(now - began) / 60,
            processes=look_at_all(stage),
            lag_events=lag_events,
            lag_seconds=lag_seconds,
            events_a_second=tally.acked / (now - before),
            median_seconds=percentile(tally.waits, 0.5),
            p99_seconds=percentile(tally.waits, 0.99),
            refused=tally.refused,
        )
        # The last is short, and says little.
        if not sending.done():
            samples.append(sample)
        if int(sample.minute) > int(sample.minute - _SAMPLE_SECONDS / 60):
            say(_in_short(sample))
        before = now
    await sending
    return samples, acked


async def count_stored(stage: Stage, shop: Shop) -> int:
    """How many different events of the shop the log holds; -1 if some are there twice."""
    names = await stage.count_names(shop)
    async with stage.root.connect() as connection:
        different = await connection.scalar(text("SELECT COUNT(DISTINCT message_id) FROM events"))
        stored = await connection.scalar(text("SELECT COUNT(*) FROM events"))
    return sum(names.values()) if different == stored else -1


async def count_counted(query: AsyncEngine) -> int:
    """How many events Query's figures count."""
    statement = text(
        "SELECT SUM(tally) FROM tallies JOIN generations USING (generation)"
        " WHERE state = 2 AND measure < 100"  # Above it, parts of events are counted.
    )
    async with query.connect() as connection:
        return int(await connection.scalar(statement) or 0)


def draw(samples: Sequence[Sample], file: Path) -> None:
    """Draw what was seen over time."""
    minutes = [sample.minute for sample in samples]
    names = list(samples[-1].processes)
    figure = Figure(figsize=(12, 9), layout="constrained")
    (memory, files), (sockets, lag), (waits, load) = figure.subplots(3, 2, sharex=True)
    for name in names:
        taken = [sample.processes[name] for sample in samples]
        memory.plot(minutes, [one.memory_bytes / _MIB for one in taken], label=name)
        files.plot(minutes, [one.file_count for one in taken], label=name)
        sockets.plot(minutes, [one.socket_count for one in taken], label=name)
    lag.plot(minutes, [sample.lag_seconds for sample in samples])
    waits.plot(minutes, [1000 * sample.p99_seconds for sample in samples], label="99 %")
    waits.plot(minutes, [1000 * sample.median_seconds for sample in samples], label="median")
    load.plot(minutes, [sample.events_a_second for sample in samples])
    for axes, title in (
        (memory, "memory, MiB"),
        (files, "open files"),
        (sockets, "connections (sockets)"),
        (lag, "age of Query's figures, s"),
        (waits, "until an event is acknowledged, ms"),
        (load, "events a second"),
    ):
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    for axes in (waits, load):
        axes.set_xlabel("minutes")
    for axes in (memory, waits):
        axes.legend(fontsize=8, ncols=2)
    figure.savefig(file, dpi=80, metadata={"Software": None})


def describe(samples: Sequence[Sample]) -> Figures:
    """What each process took, in the middle third and in the last."""
    third = len(samples) // 3
    parts = samples[third : 2 * third], samples[2 * third :]
    table = Figures(
        ["process", "memory, second third", "last third", "open files", "", "connections", ""]
    )
    for name in samples[-1].processes:
        most = [
            (
                max(sample.processes[name].memory_bytes for sample in part) / _MIB,
                max(sample.processes[name].file_count for sample in part),
                max(sample.processes[name].socket_count for sample in part),
            )
            for part in parts
        ]
        table.add(
            name, *(f"{one[0]:.0f} MiB" for one in most), *(one[1] for one in most),
            *(one[2] for one in most),
        )  # fmt: skip
    return table


def _in_short(sample: Sample) -> str:
    memory = ", ".join(
        f"{name} {process.memory_bytes / _MIB:.0f}" for name, process in sample.processes.items()
    )
    return (
        f"minute {sample.minute:.0f}: {sample.events_a_second:,.0f} events/s,"
        f" p99 {1000 * sample.p99_seconds:.0f} ms, figures {sample.lag_seconds:.1f} s old,"
        f" MiB: {memory}"
    )


def say(line: str) -> None:
    """Tell how far it is."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


async def run(*, minutes: float, share: float, write: bool) -> Iterable[str]:
    """Soak a mesh; returns what is wrong, in sentences."""
    with tempfile.TemporaryDirectory() as name:
        async with (
            staged(Path(name), database_options=_DATABASE_OPTIONS) as stage,
            stage.replaced("query", variables=_OF_QUERY),
        ):
            query = create_async_engine(
                stage.mariadb.migration_url("query"),
                poolclass=NullPool,
                isolation_level="READ COMMITTED",
            )
            shop = await stage.new_shop()
            say(f"measuring how much the mesh takes, for {_CAPACITY_SECONDS:.0f} s")
            capacity, acked_before = await measure_capacity(stage, shop, query)
            rate = share * capacity
            say(f"{capacity:,.0f} events/s; sending {rate:,.0f}/s for {minutes:g} minutes")
            samples, acked = await soak(stage, shop, query, rate=rate, minutes=minutes)
            acked += acked_before
            await stage.wait_until_drained()
            await wait_until_counted(stage, query)
            stored = await count_stored(stage, shop)
            counted = await count_counted(query)
            async with stage.root.connect() as connection:
                version = await connection.scalar(text("SELECT VERSION()"))
            await query.dispose()
    wrong = list(find_growth(samples))
    held = median(sample.events_a_second for sample in samples[2 * len(samples) // 3 :])
    if held < _HELD * rate:
        wrong.append(f"in the end {held:,.0f} events a second were sent, and not {rate:,.0f}")
    if stored != acked:
        wrong.append(f"{acked:,} events were acknowledged, and {stored:,} are stored")
    if counted != acked:
        wrong.append(f"{acked:,} events were acknowledged, and Query counts {counted:,}")
    steady = samples[len(samples) // 3 :]
    summary = (
        f"{minutes:g} minutes at {median(one.events_a_second for one in steady):,.0f} events a"
        f" second, {share:.0%} of the {capacity:,.0f} that are taken without a pause, and counted,"
        f" in {_CAPACITY_SECONDS:.0f} s at the start: {acked:,} events acknowledged,"
        f" {stored:,} stored, none twice, {sum(one.refused for one in samples):,} requests refused."
        " In the last"
        f" two thirds acknowledgements took {1000 * median(s.median_seconds for s in steady):.0f}"
        f" ms (median) and {1000 * median(s.p99_seconds for s in steady):.0f} ms (99th percentile);"
        f" figures were {median(s.lag_seconds for s in steady):.1f} s old (median),"
        f" {max(s.lag_seconds for s in steady):.1f} s at the most."
    )
    table = describe(samples).as_markdown(servers=[f"MariaDB {version}"])
    sys.stdout.write(f"{summary}\n\n{table}\n")
    if write and not wrong:
        draw(samples, _DOCUMENTS / "images" / "soak.png")
        picture = "![What the processes took over time](images/soak.png)"
        options = " and ".join(f"`{option}`" for option in _DATABASE_OPTIONS)
        of_query = " and ".join(f"`{name}={value}`" for name, value in _OF_QUERY.items())
        given = f"At most; MariaDB has {options}, and keeps what it is given; Query has {of_query}:"
        replace_block(
            _DOCUMENTS / "reliability.md", "soak", f"{summary}\n\n{picture}\n\n{given}\n\n{table}"
        )
    return wrong


def main() -> None:
    """Run, and end with 1 if something grew or is missing."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="for how long (30)")
    parser.add_argument("--share", type=float, default=0.7, help="of what the mesh can take (0.7)")
    parser.add_argument("--write", action="store_true", help="into docs/, if nothing is wrong")
    arguments = parser.parse_args()
    if arguments.minutes < 1:
        parser.error("--minutes: less than 1 shows nothing")
    wrong = asyncio.run(
        run(minutes=arguments.minutes, share=arguments.share, write=arguments.write)
    )
    for sentence in wrong:
        say(sentence)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
