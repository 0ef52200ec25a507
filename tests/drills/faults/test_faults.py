"""Whatever breaks, what was acknowledged is stored, once, in order, and counted.

Each drill sends events from all sides through the gateway, until each is acknowledged, breaks
something on the way, and then compares what the senders were told with what the databases
hold. `make drills` runs them at their whole length, `make test` a few of them, shortened.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiomysql
import pytest
from sqlalchemy import text

from deploy.local.gateway_client import GatewayClient, GatewayUnreachableError
from tests.drills.faults.drill import SEED, Fault, Load, Report, run_drill
from tests.drills.faults.partition import partitioned
from tests.drills.faults.stage import Stage, staged
from tests.drills.figures import FULL, Figures

pytestmark = pytest.mark.timeout(1200)

# The mesh goes on in between, for a time of which the drills are made.
ROUNDS = 3 if FULL else 1
BREATH_SECONDS = 1.5 if FULL else 0.4
OUTAGE_SECONDS = 4.0 if FULL else 1.5
LONG_OUTAGE_SECONDS = 120.0 if FULL else 10.0
CHAOS_SECONDS = 600.0 if FULL else 8.0

# How many senders there are when the question is how long they wait, and not how many
# events two cores can take while they do everything else, too.
CALM = Load(shopper_count=4, pause_seconds=0.02)


async def breathe() -> None:
    """Let the mesh do its work for a while."""
    await asyncio.sleep(BREATH_SECONDS)


def times(count: int, what: Fault) -> Fault:
    """The same fault several times."""

    async def again(stage: Stage) -> None:
        for _ in range(count):
            await what(stage)
            await breathe()

    return again


def kill(name: str) -> Fault:
    """A crash."""

    async def fault(stage: Stage) -> None:
        stage.signal(name, signal.SIGKILL)

    return times(ROUNDS, fault)


def stop(name: str) -> Fault:
    """A process that is told to end, as in a deploy."""

    async def fault(stage: Stage) -> None:
        if name == "mariadb":  # Told to end while it starts, it does neither.
            await stage.wait_for_mariadb()
        stage.signal(name, signal.SIGTERM)

    return times(ROUNDS, fault)


def pause(name: str) -> Fault:
    """A process that sleeps."""

    async def fault(stage: Stage) -> None:
        await stage.pause(name, OUTAGE_SECONDS)

    return fault


async def nothing(stage: Stage) -> None:
    """No fault, to compare with."""
    await asyncio.sleep(OUTAGE_SECONDS)


async def slow_database(stage: Stage) -> None:
    """Each way takes 100 ms longer, for Ingest and for the others."""
    stage.fault_count += 1
    stage.network.latency_seconds = stage.other_network.latency_seconds = 0.1
    await asyncio.sleep(OUTAGE_SECONDS)
    await stage.network.heal()
    await stage.other_network.heal()


async def throttled_database(stage: Stage) -> None:
    """20 kB a second."""
    stage.fault_count += 1
    stage.network.bytes_per_second = 20_000
    await asyncio.sleep(OUTAGE_SECONDS)
    await stage.network.heal()


async def silent_database(stage: Stage) -> None:
    """Nothing goes through, and nobody is told."""
    stage.fault_count += 1
    stage.network.black_hole()
    await asyncio.sleep(OUTAGE_SECONDS)
    await stage.network.heal()


async def closed_database(stage: Stage) -> None:
    """Connections are refused, for all services."""
    stage.fault_count += 1
    await asyncio.gather(stage.network.refuse(), stage.other_network.refuse())
    await asyncio.sleep(OUTAGE_SECONDS)
    await asyncio.gather(stage.network.heal(), stage.other_network.heal())


async def reset_storm(stage: Stage) -> None:
    """All connections are cut, again and again."""
    for _ in range(10):
        stage.fault_count += 1
        stage.network.reset()
        stage.other_network.reset()
        await asyncio.sleep(0.15)


async def swallowed_replies(stage: Stage) -> None:
    """The database's answers get lost, and the connection with them."""
    count = 10 if FULL else 3
    stage.fault_count += count
    stage.network.swallow_replies = count
    async with asyncio.timeout(60):
        while stage.network.swallow_replies:  # noqa: ASYNC110 - the proxy has no such event
            await asyncio.sleep(0.05)


async def swallowed_commits(stage: Stage) -> None:
    """Transactions are committed, and Ingest isn't told."""
    for _ in range(20 if FULL else 5):
        stage.fault_count += 1
        stage.network.swallow_commits = 1
        async with asyncio.timeout(60):
            while stage.network.swallow_commits:  # noqa: ASYNC110 - the proxy has no such event
                await asyncio.sleep(0.02)


async def locked_table(stage: Stage) -> None:
    """A change of the log's table waits for a reader, and all writers for the change."""
    stage.fault_count += 1
    async with stage.root.connect() as reader:
        await reader.execute(text("SELECT id FROM events LIMIT 1"))
        async with stage.root.connect() as changer:
            change = asyncio.create_task(
                changer.exec_driver_sql("ALTER TABLE events COMMENT = 'drill'")
            )
            await asyncio.sleep(OUTAGE_SECONDS)
            await reader.rollback()
            await change


async def locked_head(stage: Stage) -> None:
    """Another writer holds the shard, and sleeps."""
    stage.fault_count += 1
    async with stage.root.begin() as transaction:
        await transaction.execute(text("SELECT position FROM log_heads FOR UPDATE"))
        await asyncio.sleep(OUTAGE_SECONDS)


async def used_up_connections(stage: Stage) -> None:
    """Somebody else takes all of the database's connections, and Ingest crashes."""
    stage.fault_count += 1
    async with AsyncExitStack() as stack:
        for _ in range(1000):
            try:
                connection = await aiomysql.connect(
                    host="127.0.0.1",
                    port=stage.mariadb.port,
                    user="maintenance",
                    password=stage.mariadb.passwords["maintenance"],
                )
            except (aiomysql.OperationalError, OSError):
                break
            stack.callback(connection.close)
        stage.signal("ingest", signal.SIGKILL)
        await asyncio.sleep(OUTAGE_SECONDS)


async def crashes_while_draining(stage: Stage) -> None:
    """The database is away; when it comes back, Ingest crashes again and again as it drains."""
    chance = random.Random(SEED)  # noqa: S311 - no secret
    await stage.network.refuse()
    await asyncio.sleep(OUTAGE_SECONDS)
    await stage.network.heal()
    for _ in range(5 * ROUNDS):
        await asyncio.sleep(chance.uniform(0.2, 1.4))
        stage.signal("ingest", signal.SIGKILL)


async def crashes_without_database(stage: Stage) -> None:
    """Ingest crashes while its database is away, and starts without it."""
    await stage.network.refuse()
    for _ in range(ROUNDS):
        await breathe()
        stage.signal("ingest", signal.SIGKILL)
        await asyncio.sleep(2)
    await stage.network.heal()


# What `make test` runs, too.
SHORT: Sequence[tuple[str, Fault]] = (
    ("Ingest killed", kill("ingest")),
    ("MariaDB killed", kill("mariadb")),
    ("the database silent", silent_database),
    ("the answer to COMMIT swallowed", swallowed_commits),
    ("Ingest killed while it drains its journal", crashes_while_draining),
    ("a table locked", locked_table),
)
LONG: Sequence[tuple[str, Fault]] = (
    ("no fault", nothing),
    *SHORT,
    ("Ingest killed while its database is away", crashes_without_database),
    ("the gateway killed", kill("gateway")),
    ("Query killed", kill("query")),
    ("Keys killed", kill("keys")),
    ("Redis killed", kill("redis")),
    ("Ingest stopped and started", stop("ingest")),
    ("the gateway stopped and started", stop("gateway")),
    ("MariaDB stopped and started", stop("mariadb")),
    ("Ingest asleep", pause("ingest")),
    ("the gateway asleep", pause("gateway")),
    ("MariaDB asleep", pause("mariadb")),
    ("Redis asleep", pause("redis")),
    ("the database slow, 200 ms there and back", slow_database),
    ("the database throttled to 20 kB/s", throttled_database),
    ("the database refuses", closed_database),
    ("connections reset ten times", reset_storm),
    ("the database's answers swallowed", swallowed_replies),
    ("the shard's head locked", locked_head),
    ("all connections used up, Ingest killed", used_up_connections),
)


def expect_nothing_wrong(report: Report) -> None:
    """Fail if an event was lost, doubled, miscounted, or left in doubt."""
    assert report.findings.clean, report.findings
    assert report.unknown == 0
    assert report.miscounted == 0
    assert report.history.lacking_retry_after == 0
    assert report.history.acked


FAULTS = LONG if FULL else SHORT


@pytest.mark.parametrize(("name", "fault"), FAULTS, ids=[name for name, _ in FAULTS])
async def test_a_fault_costs_no_event(
    stage: Stage, table: Figures, name: str, fault: Fault
) -> None:
    report = await run_drill(stage, fault)

    table.add(name, *report.cells())
    expect_nothing_wrong(report)


async def test_senders_hardly_notice_that_the_database_is_away(
    stage: Stage, table: Figures
) -> None:
    async def away(stage: Stage) -> None:
        stage.fault_count += 1
        await asyncio.gather(stage.network.refuse(), stage.other_network.refuse())
        await asyncio.sleep(LONG_OUTAGE_SECONDS)
        await asyncio.gather(stage.network.heal(), stage.other_network.heal())

    report = await run_drill(stage, away, load=CALM)

    table.add(f"the database away for {LONG_OUTAGE_SECONDS:g} s", *report.cells())
    expect_nothing_wrong(report)
    assert set(report.history.statuses) == {200}
    # Tests run beside others, which may keep the processor from all of this.
    assert report.history.percentile(0.99) <= (0.1 if FULL else 1.0)


async def test_chaos_costs_no_event(stage: Stage, table: Figures) -> None:
    chance = random.Random(SEED)  # noqa: S311 - no secret

    async def chaos(stage: Stage) -> None:
        deadline = asyncio.get_running_loop().time() + CHAOS_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            match chance.randrange(10):
                case 0 | 1:
                    stage.signal(chance.choice(["ingest", "gateway", "query"]), signal.SIGKILL)
                case 2:
                    stage.signal(chance.choice(["keys", "redis", "maintenance"]), signal.SIGKILL)
                case 3:
                    stage.signal("mariadb", signal.SIGKILL)
                case 4:
                    stage.network.black_hole()
                case 5:
                    await stage.network.refuse()
                case 6:
                    stage.network.latency_seconds = chance.uniform(0, 0.1)
                case 7:
                    stage.network.swallow_commits += 1
                case 8:
                    stage.network.reset()
                    stage.other_network.reset()
                case _:
                    await stage.pause(
                        chance.choice(["ingest", "query", "mariadb"]), chance.uniform(0.2, 2)
                    )
            stage.fault_count += 1
            await asyncio.sleep(chance.uniform(0.3, 3))
            await stage.network.heal()

    report = await run_drill(stage, chaos)

    table.add(f"{report.fault_count} faults at random", *report.cells())
    expect_nothing_wrong(report)
    if FULL:
        assert report.fault_count >= 200


async def test_a_full_journal_refuses_until_there_is_room(stage: Stage, table: Figures) -> None:
    async def away(stage: Stage) -> None:
        stage.fault_count += 1
        await stage.network.refuse()
        await asyncio.sleep(4 * OUTAGE_SECONDS)
        await stage.network.heal()

    async with stage.replaced("ingest", variables={"INGEST_JOURNAL_BYTES": str(1024 * 1024)}):
        report = await run_drill(stage, away, load=Load(batch_size=50))
        size = sum(path.stat().st_size for path in stage.journal_directory.glob("*/*.journal"))

    table.add("the database away, the journal full at 1 MiB", *report.cells())
    expect_nothing_wrong(report)
    assert set(report.history.statuses) >= {200, 503}
    assert size == 0


async def test_the_mesh_starts_in_any_order_and_says_what_is_missing(stage: Stage) -> None:
    database, others = stage.mariadb.child, list(stage.children.values())
    await asyncio.gather(*(child.stop(patience_seconds=10) for child in others))
    await database.stop(patience_seconds=20)
    gateway = stage.children["gateway"]
    client = GatewayClient(stage.gateway)

    await gateway.start()
    missing = await answer_of(client, "/readyz")
    for child in others:
        if child is not gateway:
            await child.start()
    await wait_until(client, lambda body: "ingest" not in body["waiting_for"])
    await database.start()
    await stage.wait_for_mariadb()
    await wait_until(client, lambda body: bool(body["ready"]))

    assert missing["waiting_for"] == ["ingest", "keys", "maintenance", "query"]
    report = await run_drill(stage, nothing)
    expect_nothing_wrong(report)


async def answer_of(client: GatewayClient, path: str) -> dict[str, Any]:
    """What the gateway says there, once it says anything."""
    async with asyncio.timeout(60):
        while True:
            try:
                body: dict[str, Any] = (await client.get(path)).body
                return body
            except GatewayUnreachableError:
                await asyncio.sleep(0.05)


async def wait_until(client: GatewayClient, ready: Callable[[dict[str, Any]], bool]) -> None:
    """Return once the gateway is as ready as that."""
    async with asyncio.timeout(60):
        answer = await answer_of(client, "/readyz")
        while not ready(answer):
            await asyncio.sleep(0.05)
            answer = await answer_of(client, "/readyz")


if FULL:

    async def test_far_too_many_senders_are_told_to_wait_and_the_others_served(
        stage: Stage, table: Figures
    ) -> None:
        seconds = 3 * OUTAGE_SECONDS

        async def busy(stage: Stage) -> None:
            await asyncio.sleep(seconds)

        full = Load(shopper_count=8, batch_size=200, pause_seconds=0)
        capacity = await run_drill(stage, busy, load=full)
        before = {name: stage.memory_bytes(name) for name in ("gateway", "ingest")}
        crowd = Load(shopper_count=256, batch_size=200, pause_seconds=0)
        report = await run_drill(stage, busy, load=crowd)
        growth = max(stage.memory_bytes(name) - size for name, size in before.items())
        calm = await run_drill(stage, nothing, load=CALM)

        table.add("as much as goes in", *capacity.cells())
        table.add("256 senders of 200 events at a time", *report.cells())
        for each in (capacity, report, calm):
            expect_nothing_wrong(each)
        assert set(report.history.statuses) <= {200, 429, 503}
        assert report.history.statuses[503] > 0
        assert len(report.history.acked) / report.seconds >= (
            0.8 * len(capacity.history.acked) / capacity.seconds
        )
        assert growth < 300 * 1024 * 1024
        assert calm.history.percentile(0.99) <= 0.1

    async def test_a_network_that_is_cut_costs_no_event(stage: Stage, table: Figures) -> None:
        async with partitioned(stage) as network:
            url = stage.programs["ingest"].environment["INGEST_DATABASE_URL"]
            elsewhere = url.replace(
                f"127.0.0.1:{stage.network.port}/", f"{network.host}:{network.port}/"
            )

            async def cut(stage: Stage) -> None:
                for sever in (network.cut, network.cut_answers):
                    stage.fault_count += 1
                    await sever()
                    await asyncio.sleep(OUTAGE_SECONDS)
                    await network.heal()
                    await breathe()

            async with stage.replaced("ingest", variables={"INGEST_DATABASE_URL": elsewhere}):
                report = await run_drill(stage, cut)

        table.add("a network cut, both ways and one", *report.cells())
        expect_nothing_wrong(report)

    async def test_clocks_that_jump_cost_no_event(
        stage: Stage, table: Figures, libfaketime: str, tmp_path: Path
    ) -> None:
        clock = tmp_path / "clock"
        clock.write_text("+0")
        wrong = {
            "LD_PRELOAD": libfaketime,
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

        async def jump(stage: Stage) -> None:
            for offset in ("+3600", "-1800", "+0", "+86400", "+0"):
                stage.fault_count += 1
                clock.write_text(offset)
                await breathe()

        for name in ("ingest", "gateway"):
            async with stage.replaced(name, variables=wrong):
                report = await run_drill(stage, jump)
            table.add(f"the clock of {name} jumps", *report.cells())
            expect_nothing_wrong(report)

    async def test_a_full_disk_costs_no_event(table: Figures, drill_directory: Path) -> None:
        for journal_too in (False, True):
            disk = drill_directory / f"disk-{journal_too}"
            disk.mkdir()
            with small_disk(disk):
                await fill_disk(table, disk, drill_directory, journal_too=journal_too)


@contextmanager
def small_disk(directory: Path) -> Iterator[None]:
    """A file system of 400 MB in memory, for the block."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(directory)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


async def fill_disk(
    table: Figures, disk: Path, drill_directory: Path, *, journal_too: bool
) -> None:
    """Fill the database's disk for a while, which may be the journal's, too."""
    directory = disk if journal_too else drill_directory / "other"

    async def full(stage: Stage) -> None:
        stage.fault_count += 1
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            for size in (1024 * 1024, 4096):
                with suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass
        await asyncio.sleep(3 * OUTAGE_SECONDS)
        ballast.unlink()

    async with staged(directory, data_directory=disk / "mariadb") as stage:
        report = await run_drill(stage, full, load=Load(batch_size=20))
    where = "of database and journal" if journal_too else "of the database"
    table.add(f"the disk {where} full, then freed", *report.cells())
    expect_nothing_wrong(report)
    assert (503 in report.history.statuses) == journal_too


async def test_who_acknowledges_before_the_commit_is_found_out(
    stage: Stage, table: Figures
) -> None:
    async with stage.replaced(
        "ingest",
        module="tests.drills.faults.careless_ingest",
        variables={"INGEST_JOURNAL_DIRECTORY": ""},
    ):
        report = await run_drill(stage, times(2, kill("mariadb")), recounted=False)

    table.add("acknowledged before the commit, which must lose", *report.cells())
    assert report.findings.lost > 0


async def test_who_has_no_unique_key_is_found_out(stage: Stage, table: Figures) -> None:
    async with stage.root.connect() as connection:
        await connection.exec_driver_sql("ALTER TABLE events DROP INDEX store_uid")
        try:
            # Without a journal, it is the sender who tries again what may be stored.
            async with stage.replaced("ingest", variables={"INGEST_JOURNAL_DIRECTORY": ""}):
                report = await run_drill(stage, swallowed_commits, recounted=False)
        finally:
            await connection.exec_driver_sql(
                "UPDATE events JOIN (SELECT store_uid, message_key, MIN(id) AS first FROM events"
                " GROUP BY store_uid, message_key HAVING COUNT(*) > 1) AS doubled"
                " USING (store_uid, message_key)"
                " SET events.message_key = UNHEX(MD5(id)) WHERE id > first"
            )
            await connection.commit()
            await connection.exec_driver_sql(
                "ALTER TABLE events ADD UNIQUE INDEX store_uid (store_uid, message_key)"
            )

    table.add("no unique key, which must double", *report.cells())
    assert report.findings.doubled > 0
