"""Measures ingestion from HTTP to commit; run by `make bench`.

Starts the mesh, drives it with wrk on loopback, bounded in time, and compares it with what
the same database takes from a client that does nothing but insert, and with the obvious way:
a commit for each request. Every figure is the median of several rounds of one run; rows are
counted after each round, and the run fails if one that was acknowledged is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import secrets
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql

from common.uid import new_uuid
from tests.bench.key_verification import measure_keys
from tests.bench.machine import describe_run, processor_seconds, resident_bytes
from tests.polling import wait_for

_HERE = Path(__file__).parent
_RESULTS = _HERE / "RESULTS.md"
_SECTION = re.compile(r"<!-- ingest -->.*<!-- /ingest -->", re.DOTALL)
_MEASURED = ("gateway", "ingest", "mariadb")
_SETTLED_SECONDS = 300.0
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk does."""

    name: str
    script: str
    connections: int
    events_a_request: int


@dataclass(frozen=True, slots=True)
class Round:
    """What came of a load once."""

    events_a_second: float
    median_ms: float
    p99_ms: float
    microseconds: dict[str, float]
    """Of processor per event, by process."""


LOADS = (
    Load("single events, 256 connections", "one_event.lua", 256, 1),
    Load("single events, 64 connections", "one_event.lua", 64, 1),
    Load("single events, 16 connections", "one_event.lua", 16, 1),
    Load("50 events a request, 32 connections", "fifty_events.lua", 32, 50),
)


class Mesh:
    """A mesh of its own for the measurement."""

    def __init__(self, directory: Path, database: str) -> None:
        self.directory = directory
        self.database = database

    @property
    def announced(self) -> dict[str, Any]:
        announced: dict[str, Any] = json.loads((self.directory / "mesh.json").read_bytes())
        return announced

    @property
    def pids(self) -> dict[str, int]:
        return {name: pid for name, pid in self.announced["pids"].items() if name in _MEASURED}

    def count_events(self) -> int:
        """How many events are stored."""
        if self.database == "sqlite":
            with sqlite3.connect(self.directory / "sqlite" / "ingest.db") as connection:
                return int(connection.execute("SELECT COUNT(*) FROM events").fetchone()[0])
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM events WHERE id < %s", (1 << 62,))
            return int(cursor.fetchone()[0])

    def count_settled(self) -> int:
        """How many events are stored once nothing is under way any more."""
        counts = [-1]

        def is_settled() -> bool:
            # Twice the same: what is on its way between two processes shows at the next look.
            if not self.is_idle():
                return False
            counts.append(self.count_events())
            return counts[-1] == counts[-2]

        if not wait_for(is_settled, seconds=_SETTLED_SECONDS, look_seconds=0.1):
            raise SystemExit("Events are still under way.")
        return counts[-1]

    def is_idle(self) -> bool:
        """Whether no event waits in the gateway, in a call of Ingest or in its journals."""
        with urllib.request.urlopen(f"{self.announced['gateway']}/metrics") as response:  # noqa: S310 - the mesh's own address
            metrics = response.read().decode()
        waiting = re.search("^gateway_waiting_events ([0-9.]+)$", metrics, re.MULTILINE)
        assert waiting is not None
        under_way = 0.0
        for gauge in self.ask("/v1/services/ingest/gauges", "cron_key")["gauges"]:
            labels = [label["value"] for label in gauge["labels"]]
            if gauge["name"] == "ingest_log_out_of_reach" or "Append" in labels:
                under_way += gauge["value"]
        return not float(waiting[1]) and not under_way

    def ask(self, path: str, key: str, content: object = None) -> dict[str, Any]:
        """What the gateway answers to the mesh's key of this name; with content, to a POST."""
        request = urllib.request.Request(  # noqa: S310 - as above
            self.announced["gateway"] + path,
            data=None if content is None else json.dumps(content).encode(),
            headers={
                "Authorization": f"Bearer {self.announced[key]}",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=70) as response:  # noqa: S310 - as above
            answer: dict[str, Any] = json.load(response)
        return answer

    def connect(self) -> pymysql.Connection[Any]:
        """A connection to Ingest's schema, as Ingest."""
        secret = json.loads((self.directory / "secrets.json").read_bytes())
        command = Path(f"/proc/{self.announced['pids']['mariadb']}/cmdline").read_text()
        found = re.search("--port=([0-9]+)", command)
        assert found is not None
        return pymysql.connect(
            host="127.0.0.1",
            port=int(found[1]),
            user="ingest",
            password=secret["database_passwords"]["ingest"],
            database="ingest",
            autocommit=True,
        )


@contextmanager
def running_mesh(
    directory: Path, database: str, environment: Mapping[str, str] | None = None
) -> Iterator[Mesh]:
    """Run a mesh for the block."""
    command = [sys.executable, "-m", "deploy.local", "--port", "0", "--database", database]
    with subprocess.Popen(
        [*command, "--directory", str(directory)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    ) as launcher:
        assert launcher.stdout is not None
        try:
            if not any("is up at" in line for line in launcher.stdout):
                raise SystemExit("The mesh did not come up.")
            yield Mesh(directory, database)
        finally:
            launcher.terminate()
            launcher.wait(60)


@contextmanager
def without_query(mesh: Mesh) -> Iterator[None]:
    """Have Query stand still: in production it follows the log on a machine of its own."""
    pid = mesh.announced["pids"]["query"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def drive(mesh: Mesh, load: Load, *, seconds: int) -> Round:
    """Put the load on the mesh for some seconds; fails if an acknowledged event is missing."""
    stored_before = mesh.count_settled()
    used_before = processor_seconds(mesh.pids)
    command = ["wrk", "-t1", f"-c{load.connections}", f"-d{seconds}", "--latency"]
    told = subprocess.run(
        [
            *command,
            *("-s", str(_HERE / load.script), mesh.announced["gateway"]),
            *("--", mesh.announced["write_key"], secrets.token_hex(6)),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    used = processor_seconds(mesh.pids)
    if "Non-2xx" in told or "Socket errors" in told:
        raise SystemExit(f"Requests failed:\n{told}")
    requests, elapsed = _numbers(r"([0-9]+) requests in ([0-9.]+)s", told)
    acknowledged = int(requests) * load.events_a_request
    stored = mesh.count_settled() - stored_before
    under_way = load.connections * load.events_a_request
    # wrk leaves when its time is up: what was under way may be stored, and isn't counted.
    if not acknowledged <= stored <= acknowledged + under_way:
        raise SystemExit(f"{acknowledged} events were acknowledged, {stored} are stored.")
    return Round(
        events_a_second=acknowledged / elapsed,
        median_ms=_milliseconds("50%", told),
        p99_ms=_milliseconds("99%", told),
        microseconds={
            name: 1e6 * (used[name] - used_before[name]) / stored for name in used_before
        },
    )


def insert_rows(mesh: Mesh, *, rows: int, seconds: int, clients: int = 2) -> tuple[float, float]:
    """Rows a second, and the database's processor microseconds a row, of bare inserts.

    Into the same table, a transaction a statement, from connections that do nothing else;
    the statements are made beforehand.
    """
    payload = b'{"event":"Product Viewed","properties":{"price":39.9}}'.ljust(400).hex()
    # Above all ids that the log hands out.
    ids = itertools.count(1 << 62 | time.time_ns())

    def statement() -> str:
        values = (
            f"({next(ids)},x'{new_uuid().hex()}',x'{bytes(16).hex()}',"
            f"x'{secrets.token_hex(16)}','m-1',1,'Product Viewed','','visitor-1',"
            f"'2026-11-22 10:00:00','2026-11-22 10:00:00',x'{payload}',x'{payload}')"
            for _ in range(rows)
        )
        return f"INSERT INTO events VALUES {','.join(values)}"

    prepared = [[statement() for _ in range(80_000 // rows // clients)] for _ in range(clients)]
    inserted = [0] * clients
    until = time.monotonic() + seconds

    def insert(client: int) -> None:
        with mesh.connect() as connection:
            for text in prepared[client]:
                if time.monotonic() > until:
                    break
                connection.query(text)
                inserted[client] += rows

    used_before, began = processor_seconds(mesh.pids)["mariadb"], time.monotonic()
    threads = [threading.Thread(target=insert, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - began
    used = processor_seconds(mesh.pids)["mariadb"] - used_before
    return sum(inserted) / elapsed, 1e6 * used / sum(inserted)


def median_round(rounds: Sequence[Round]) -> Round:
    """The median of each figure."""
    return Round(
        events_a_second=statistics.median(each.events_a_second for each in rounds),
        median_ms=statistics.median(each.median_ms for each in rounds),
        p99_ms=statistics.median(each.p99_ms for each in rounds),
        microseconds={
            name: statistics.median(each.microseconds[name] for each in rounds)
            for name in rounds[0].microseconds
        },
    )


def measure(arguments: argparse.Namespace) -> str:
    """All measurements, as Markdown."""
    lines = [
        "| | events/s | of raw inserts | p50 ms | p99 ms | µs/event: gateway | Ingest | database "
        "| in all |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    notes = []
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as directory:
        with running_mesh(Path(directory) / "mysql", "mysql") as mesh:
            drive(mesh, LOADS[1], seconds=3)  # Warms caches up.
            rounds: dict[Load, list[Round]] = {load: [] for load in LOADS}
            raw: dict[int, list[tuple[float, float]]] = {1: [], 50: []}
            with without_query(mesh):
                for number in range(arguments.rounds):
                    for rows, found in raw.items():
                        _say(f"round {number + 1}: raw inserts of {rows}")
                        found.append(insert_rows(mesh, rows=rows, seconds=arguments.seconds))
                    for load, done in rounds.items():
                        _say(f"round {number + 1}: {load.name}")
                        done.append(drive(mesh, load, seconds=arguments.seconds))
            limit = {rows: statistics.median(rate for rate, _ in raw[rows]) for rows in raw}
            for rows, found in raw.items():
                cost = statistics.median(microseconds for _, microseconds in found)
                lines.append(
                    f"| raw inserts, 2 clients, {rows} a statement | {limit[rows]:,.0f} | 1 "
                    f"| | | | | {cost:.0f} | {cost:.0f} |"
                )
            for load, done in rounds.items():
                lines.append(_row(load.name, median_round(done), limit[50]))
            coalesced = median_round(rounds[LOADS[1]]).events_a_second
            for name in ("gateway", "ingest"):
                notes.append(f"{name} holds {resident_bytes(mesh.pids[name]) / 2**20:.0f} MiB")
            notes.insert(0, f"After {mesh.count_events():,} events")
        with running_mesh(Path(directory) / "followed", "mysql") as mesh:
            _say("with Query following on the same two cores")
            done = [
                drive(mesh, LOADS[1], seconds=arguments.seconds) for _ in range(arguments.rounds)
            ]
            followed = "single events, 64 connections, Query following beside it"
            lines.append(_row(followed, median_round(done), limit[50]))
        obvious = {"PYTHONPATH": f"{_HERE / 'uncoalesced'}{os.pathsep}{_HERE.parents[1]}"}
        with (
            running_mesh(Path(directory) / "obvious", "mysql", obvious) as mesh,
            without_query(mesh),
        ):
            _say("a commit for each request")
            done = [
                drive(mesh, LOADS[1], seconds=arguments.seconds) for _ in range(arguments.rounds)
            ]
            without = median_round(done)
            lines.append(_row("a commit for each request, 64 connections", without, limit[50]))
            notes.append(f"coalescing is worth {coalesced / without.events_a_second:.1f} times")
        with running_mesh(Path(directory) / "sqlite", "sqlite") as mesh, without_query(mesh):
            for load in (LOADS[1], LOADS[3]):
                _say(f"SQLite: {load.name}")
                done = [
                    drive(mesh, load, seconds=arguments.seconds) for _ in range(arguments.rounds)
                ]
                lines.append(_row(f"SQLite: {load.name}", median_round(done), None))
    free, bound = asyncio.run(measure_keys())
    notes.append(f"a remembered key costs a request {free:.2f} µs, one bound to hosts {bound:.2f}")
    return "\n".join([describe_run(), "", *lines, "", "; ".join(notes) + "."])


def _row(name: str, found: Round, limit: float | None) -> str:
    cost = found.microseconds
    database = f"{cost['mariadb']:.0f}" if "mariadb" in cost else "in Ingest"
    ratio = f"{found.events_a_second / limit:.2f}" if limit else ""
    return (
        f"| {name} | {found.events_a_second:,.0f} | {ratio} | {found.median_ms:.1f} "
        f"| {found.p99_ms:.1f} | {cost['gateway']:.0f} | {cost['ingest']:.0f} | {database} "
        f"| {sum(cost.values()):.0f} |"
    )


def _numbers(pattern: str, text: str) -> tuple[float, ...]:
    found = re.search(pattern, text)
    if found is None:
        raise SystemExit(f"wrk said something else:\n{text}")
    return tuple(float(number) for number in found.groups())


def _milliseconds(percentile: str, text: str) -> float:
    found = re.search(rf"{percentile} +([0-9.]+)(us|ms|s)", text)
    if found is None:
        raise SystemExit(f"wrk said something else:\n{text}")
    return float(found[1]) * _UNITS[found[2]]


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main() -> None:
    """Measure, print, and write the table into RESULTS.md."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--seconds", type=int, default=8, help="of each load (8)")
    parser.add_argument("--rounds", type=int, default=3, help="whose median is told (3)")
    table = measure(parser.parse_args())
    sys.stdout.write(f"{table}\n")
    section = f"<!-- ingest -->\n{table}\n<!-- /ingest -->"
    _RESULTS.write_text(_SECTION.sub(lambda _: section, _RESULTS.read_text()))


if __name__ == "__main__":
    main()
