"""Measures what retention costs those who send meanwhile; run by `make bench-retention`.

Starts the mesh over MariaDB, fills the log with old events, and has wrk send new ones: for some
seconds with nothing else to do, then while `expire-events` is at work, and so on by turns.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.bench.ingest import Load, Mesh, Round, drive, running_mesh, without_query
from tests.bench.machine import describe_run
from tests.polling import wait_for

_RESULTS = Path(__file__).parent / "RESULTS.md"
_SECTION = re.compile(r"<!-- retention -->.*<!-- /retention -->", re.DOTALL)
_HOUR = timedelta(hours=1)
_LONGEST_RUN_SECONDS = 3600.0
_FIRST = Load("fill", "fifty_events.lua", 8, 50)
_LOAD = Load("single events, 16 connections", "one_event.lua", 16, 1)
_COPIED = "store_uid, message_id, type, name, user_id, anonymous_id, occur_time"


def fill(mesh: Mesh, events: int) -> int:
    """Have as many old events in the log, copied from some that were sent; returns how many."""
    drive(mesh, _FIRST, seconds=3)
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    wait_for(
        lambda: run_job(mesh, "index-people", hour - _HOUR).endswith("_RAN"),
        seconds=_LONGEST_RUN_SECONDS,
    )
    with mesh.connect() as connection, connection.cursor() as cursor:
        # The job stops at the first that is young: none that is old comes later.
        cursor.execute("UPDATE events SET receive_time = UTC_TIMESTAMP(6) - INTERVAL 60 DAY")
        while True:
            # As much as one statement may hold.
            cursor.execute("SELECT shard, position FROM log_heads WHERE position > 0")
            heads = cursor.fetchall()
            if sum(position for _, position in heads) >= events:
                return sum(position for _, position in heads)
            for shard, position in heads:
                of_shard = (position, shard << 48, (shard << 48) + position)
                cursor.execute(
                    "INSERT INTO events (id, uid, message_key, receive_time, payload, enrichment,"
                    f" {_COPIED}) SELECT id + %s, RANDOM_BYTES(16), RANDOM_BYTES(16),"
                    f" UTC_TIMESTAMP(6) - INTERVAL 60 DAY, payload, enrichment, {_COPIED}"
                    " FROM events WHERE id > %s AND id <= %s",
                    of_shard,
                )
                cursor.execute(
                    "INSERT INTO event_people (store_uid, digest, event_id)"
                    " SELECT store_uid, digest, event_id + %s FROM event_people"
                    " WHERE event_id > %s AND event_id <= %s",
                    of_shard,
                )
                for table in ("people_cursors", "log_heads"):
                    cursor.execute(
                        f"UPDATE {table} SET position = position + %s WHERE shard = %s",
                        (position, shard),
                    )
            sys.stderr.write(f"{2 * sum(position for _, position in heads):,} events\n")


def run_job(mesh: Mesh, name: str, scheduled_time: datetime) -> str:
    """Call a job of Ingest for a time; returns the outcome."""
    asked = {"scheduled_time": scheduled_time.isoformat()}
    return str(mesh.ask(f"/v1/cron/ingest/{name}:run", "cron_key", asked)["outcome"])


@contextmanager
def expiring(mesh: Mesh, scheduled_time: datetime) -> Iterator[None]:
    """Have events expire for the block, the job called again whenever its time is up."""
    ending = threading.Event()
    finished_early: list[str] = []
    rules = f"/v1/stores/{mesh.announced['store_uid']}/retention-rules"
    mesh.ask(rules, "secret_key", {"days": 30})

    def has_run() -> bool:
        return run_job(mesh, "expire-events", scheduled_time).endswith("_RAN")

    def keep_calling() -> None:
        # Not at once again: the mesh's own clock may be at the same job.
        ran = wait_for(has_run, seconds=_LONGEST_RUN_SECONDS, look_seconds=0.1)
        if ran and not ending.is_set():
            finished_early.append("nothing was left to expire: there are too few events")

    before = count_remnants(mesh)
    calling = threading.Thread(target=keep_calling)
    calling.start()
    wait_for(
        lambda: count_remnants(mesh) != before or not calling.is_alive(),
        seconds=_LONGEST_RUN_SECONDS,
    )
    try:
        yield
    finally:
        ending.set()
        with mesh.connect() as connection, connection.cursor() as cursor:
            cursor.execute("DELETE FROM retention_rules")  # So the call finds nothing more to do.
        calling.join()
    if finished_early:
        raise SystemExit(finished_early[0])


def count_remnants(mesh: Mesh) -> int:
    """How many events have expired."""
    with mesh.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT SUM(change_number) FROM log_heads")
        return int(cursor.fetchone()[0] or 0)


def measure(arguments: argparse.Namespace) -> str:
    """Measure, and return the section for the results."""
    quiet: list[Round] = []
    busy: list[Round] = []
    rates: list[float] = []
    # The mesh's own clock runs the job for this hour and later ones, also while the log is filled.
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    with (
        tempfile.TemporaryDirectory() as directory,
        running_mesh(Path(directory), "mysql") as mesh,
        without_query(mesh),
    ):
        events = fill(mesh, arguments.events)
        for number in range(1, arguments.rounds + 1):
            quiet.append(drive(mesh, _LOAD, seconds=arguments.seconds))
            with expiring(mesh, hour - number * _HOUR):
                before, began = count_remnants(mesh), time.monotonic()
                busy.append(drive(mesh, _LOAD, seconds=arguments.seconds))
                rates.append((count_remnants(mesh) - before) / (time.monotonic() - began))
    rows = [
        f"| {name} | {statistics.median(one.events_a_second for one in rounds):,.0f} |"
        f" {statistics.median(one.median_ms for one in rounds):.1f} |"
        f" {statistics.median(one.p99_ms for one in rounds):.1f} |"
        for name, rounds in (("nothing else", quiet), ("`expire-events` at work", busy))
    ]
    return "\n".join(
        [
            "| | events a second | median, ms | p99, ms |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            f"{events:,} events in the log, of which {statistics.median(rates):,.0f} a second"
            f" expired; {_LOAD.name}, {arguments.rounds} rounds of {arguments.seconds} s each.",
            "",
            describe_run(),
        ]
    )


def main() -> None:
    """Measure, and write it down if asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.retention")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write it to RESULTS.md")
    arguments = parser.parse_args()
    section = measure(arguments)
    sys.stdout.write(f"{section}\n")
    if arguments.write:
        replaced = f"<!-- retention -->\n{section}\n<!-- /retention -->"
        _RESULTS.write_text(_SECTION.sub(lambda _: replaced, _RESULTS.read_text()))


if __name__ == "__main__":
    main()
