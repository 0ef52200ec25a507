"""A network of its own between Ingest and its database, which can really be cut."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from deploy.local.processes import Child, Program, kept_running
from tests.drills.faults.stage import Stage
from tests.drills.proxy import proxied

_NAMESPACE, _NEAR, _FAR = "shoptrail-drill", "drill-near", "drill-far"
# From the range that is for benchmarks, so it is nobody's.
_NEAR_HOST, _FAR_HOST = "198.18.77.1", "198.18.77.2"
_PORT = 3306


@dataclass(frozen=True, slots=True)
class Partition:
    """The network, and where the database is in it."""

    host: str
    port: int

    async def cut(self) -> None:
        """Let no packet through, either way."""
        await _run("ip", "-n", _NAMESPACE, "link", "set", _FAR, "down")

    async def cut_answers(self) -> None:
        """Let requests through, and no answers."""
        await _run("ip", "-n", _NAMESPACE, "route", "add", "blackhole", f"{_NEAR_HOST}/32")

    async def heal(self) -> None:
        """Let all through again."""
        await _run("ip", "-n", _NAMESPACE, "link", "set", _FAR, "up")
        await _run("ip", "-n", _NAMESPACE, "route", "flush", "type", "blackhole")


@asynccontextmanager
async def partitioned(stage: Stage) -> AsyncIterator[Partition]:
    """The network for the block. Whoever makes it must be root."""
    await _run("ip", "netns", "add", _NAMESPACE)
    try:
        await _run(
            *("ip", "link", "add", _NEAR, "type", "veth", "peer", "name", _FAR),
            *("netns", _NAMESPACE),
        )
        await _run("ip", "addr", "add", f"{_NEAR_HOST}/30", "dev", _NEAR)
        await _run("ip", "link", "set", _NEAR, "up")
        await _run("ip", "-n", _NAMESPACE, "addr", "add", f"{_FAR_HOST}/30", "dev", _FAR)
        await _run("ip", "-n", _NAMESPACE, "link", "set", _FAR, "up")
        async with proxied(stage.mariadb.port, host=_NEAR_HOST) as back:
            program = Program(
                name="forwarder",
                arguments=(
                    *("/usr/sbin/ip", "netns", "exec", _NAMESPACE),
                    *(sys.executable, "-m", "tests.drills.proxy"),
                    *(_FAR_HOST, str(_PORT), _NEAR_HOST, str(back.port)),
                ),
                log=stage.journal_directory.parent / "forwarder.log",
            )
            forwarder = Child(program)
            async with kept_running(forwarder, patience_seconds=2):
                await forwarder.wait_until(_answers, within_seconds=30)
                yield Partition(_FAR_HOST, _PORT)
    finally:
        await _run("ip", "netns", "del", _NAMESPACE)  # The link goes with it.


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0, command


async def _answers() -> bool:
    try:
        reader, writer = await asyncio.open_connection(_FAR_HOST, _PORT)
        try:
            return bool(await reader.read(5))
        finally:
            writer.close()
    except OSError:
        return False
