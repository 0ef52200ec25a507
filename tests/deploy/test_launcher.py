"""The whole mesh, started and stopped as a user does it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.polling import wait_for

PROCESSES = {"ingest", "query", "keys", "maintenance", "gateway", "redis"}
STOP_SECONDS = 30


@contextmanager
def launcher(
    directory: Path, *, database: str = "sqlite", port: int = 0
) -> Iterator[subprocess.Popen[str]]:
    """A launcher that is starting; stopped at the end of the block if it still runs."""
    command = [sys.executable, "-m", "deploy.local", "--port", str(port)]
    command += ["--database", database, "--directory", str(directory)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(STOP_SECONDS)


def announced(process: subprocess.Popen[str], directory: Path) -> dict[str, Any]:
    """What the launcher announces, once the mesh is up."""
    assert process.stdout is not None
    for line in process.stdout:
        if "is up at" in line:
            return read_announcement(directory)
    raise AssertionError(process.stderr and process.stderr.read())


def read_announcement(directory: Path) -> dict[str, Any]:
    announcement: dict[str, Any] = json.loads((directory / "mesh.json").read_bytes())
    return announcement


@contextmanager
def watched(pids: dict[str, int]) -> Iterator[Callable[[], list[str]]]:
    """Gives a function that says which of the processes are still there after a while."""
    descriptors = {name: os.pidfd_open(pid) for name, pid in pids.items()}

    def remaining() -> list[str]:
        # A process's descriptor can be read once it has ended.
        return [name for name, end in descriptors.items() if not select.select([end], [], [], 5)[0]]

    yield remaining
    for descriptor in descriptors.values():
        os.close(descriptor)


@pytest.fixture(scope="module")
def mesh_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mesh") / "run"


@pytest.fixture(scope="module")
def mesh(mesh_directory: Path) -> Iterator[dict[str, Any]]:
    """A mesh on SQLite that several tests look at."""
    with launcher(mesh_directory) as process:
        yield announced(process, mesh_directory)


def test_the_announcement_says_where_everything_is(
    mesh: dict[str, Any], mesh_directory: Path
) -> None:
    assert set(mesh) == {
        *("gateway", "store_uid", "write_key", "secret_key", "cron_key"),
        *("database", "pids", "grpc"),
    }
    assert set(mesh["pids"]) == PROCESSES
    assert set(mesh["grpc"]) == {"ingest", "query", "keys", "maintenance"}
    assert mesh["database"] == "sqlite"
    assert httpx.get(f"{mesh['gateway']}/readyz").status_code == 200
    for address in mesh["grpc"].values():
        host, port = address.split(":")
        socket.create_connection((host, int(port)), timeout=5).close()


def test_only_their_owner_reads_what_the_mesh_wrote(
    mesh: dict[str, Any], mesh_directory: Path
) -> None:
    assert stat.S_IMODE(mesh_directory.stat().st_mode) == 0o700
    for name in ("mesh.json", "secrets.json", "sqlite/demo.json", "tls/authority.key"):
        assert stat.S_IMODE((mesh_directory / name).stat().st_mode) == 0o600


def test_the_announced_keys_work(mesh: dict[str, Any]) -> None:
    event = {"event": "Product Viewed", "anonymousId": "someone", "messageId": "first"}

    sent = httpx.post(f"{mesh['gateway']}/v1/track", json=event, auth=(mesh["write_key"], ""))
    store = httpx.get(
        f"{mesh['gateway']}/v1/stores/{mesh['store_uid']}", auth=(mesh["secret_key"], "")
    )
    jobs = httpx.get(f"{mesh['gateway']}/v1/cron/keys/jobs", auth=(mesh["cron_key"], ""))

    assert (sent.status_code, sent.json()["accepted"]) == (200, 1)
    assert store.json()["store"]["display_name"] == "Demo store"
    assert jobs.json()["jobs"]


def test_a_second_launcher_of_the_directory_is_refused(
    mesh: dict[str, Any], mesh_directory: Path
) -> None:
    with launcher(mesh_directory) as second:
        _, complaint = second.communicate(timeout=STOP_SECONDS)

    assert second.returncode == 1
    assert "Another launcher, process" in complaint
    assert read_announcement(mesh_directory) == mesh


def test_a_killed_process_is_started_again_and_announced(
    mesh: dict[str, Any], mesh_directory: Path
) -> None:
    os.kill(mesh["pids"]["query"], signal.SIGKILL)

    assert wait_for(lambda: read_announcement(mesh_directory) != mesh, seconds=10)

    now = read_announcement(mesh_directory)
    changed = {name for name, pid in now["pids"].items() if pid != mesh["pids"][name]}
    assert changed == {"query"}


@pytest.mark.parametrize(
    ("database", "number"), [("sqlite", signal.SIGINT), ("mysql", signal.SIGTERM)]
)
def test_a_stopped_launcher_leaves_nothing_running(
    tmp_path: Path, database: str, number: signal.Signals
) -> None:
    with launcher(tmp_path, database=database) as process:
        mesh = announced(process, tmp_path)
        with watched(mesh["pids"]) as remaining:
            process.send_signal(number)
            process.send_signal(signal.SIGTERM)  # As from `make`, which passes it on.
            assert process.wait(STOP_SECONDS) == 0
            assert remaining() == []

    assert mesh["database"] == database
    assert ("mariadb" in mesh["pids"]) == (database == "mysql")
    assert not (tmp_path / "mesh.json").exists()


def test_after_a_killed_launcher_nothing_runs_and_the_next_finds_the_same_store(
    tmp_path: Path,
) -> None:
    with launcher(tmp_path) as process:
        first = announced(process, tmp_path)
        with watched(first["pids"]) as remaining:
            process.kill()
            assert remaining() == []

    with launcher(tmp_path) as process:
        second = announced(process, tmp_path)

    kept = ("store_uid", "write_key", "secret_key", "cron_key")
    assert {name: second[name] for name in kept} == {name: first[name] for name in kept}
    assert set(first["pids"].values()).isdisjoint(second["pids"].values())


def test_a_launcher_can_be_stopped_while_it_starts(tmp_path: Path) -> None:
    with launcher(tmp_path) as process:
        assert process.stdout is not None
        assert "Starting" in process.stdout.readline()
        process.send_signal(signal.SIGINT)

        assert process.wait(STOP_SECONDS) == 0
    assert not (tmp_path / "mesh.json").exists()


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with launcher(tmp_path, port=port) as process:
            _, complaint = process.communicate(timeout=STOP_SECONDS)

    assert process.returncode == 1
    assert f"Port {port} can't be used" in complaint
