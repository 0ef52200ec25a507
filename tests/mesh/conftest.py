"""The whole mesh, as `make run` starts it, with real processes on both databases."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.client import open_channel
from common.tls import Certificates
from deploy.local.processes import on_leash
from shoptrail.keys.v1 import api_key_pb2, keys_pb2, keys_pb2_grpc

_START_SECONDS = 90
_STOP_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Shop:
    """A store of its own for a test, with its keys."""

    store_uid: str
    write_key: str
    secret_key: str


@dataclass(frozen=True, slots=True)
class RunningMesh:
    """A mesh that runs, and how to reach it."""

    directory: Path

    @property
    def announcement(self) -> dict[str, Any]:
        announcement: dict[str, Any] = json.loads((self.directory / "mesh.json").read_bytes())
        return announcement

    @property
    def url(self) -> str:
        return str(self.announcement["gateway"])

    def client(self, key: str = "") -> httpx.AsyncClient:
        """An HTTP client of the gateway, with a key."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20)

    async def kill(self, process: str) -> None:
        """End a process as a crash does, once the launcher has it running."""
        async with asyncio.timeout(10):
            while True:
                try:
                    os.kill(self.announcement["pids"][process], signal.SIGKILL)
                    return
                except ProcessLookupError:
                    await asyncio.sleep(0.05)  # It crashed before, and is not back yet.

    async def new_shop(self) -> Shop:
        """Make a store and its keys, as the operator does."""
        tls = self.directory / "tls"
        certificates = Certificates(
            certificate=(tls / "operator.pem").read_bytes(),
            key=(tls / "operator.key").read_bytes(),
            authority=(tls / "authority.pem").read_bytes(),
        )
        address = self.announcement["grpc"]["keys"]
        async with open_channel(address, "shoptrail.keys.v1.Keys", "keys", certificates) as channel:
            keys = keys_pb2_grpc.KeysStub(channel)
            request = keys_pb2.CreateStoreRequest(display_name="Tea and cups")
            store = (await keys.CreateStore(request, timeout=5)).store
            texts = [
                (
                    await keys.CreateKey(
                        keys_pb2.CreateKeyRequest(store_uid=store.uid, kind=kind), timeout=5
                    )
                ).text
                for kind in (api_key_pb2.KEY_KIND_PUBLISHABLE, api_key_pb2.KEY_KIND_SECRET)
            ]
        return Shop(store.uid, *texts)


@asynccontextmanager
async def running_mesh(directory: Path, database: str) -> AsyncIterator[RunningMesh]:
    """Run a mesh in the directory for the block."""
    launcher = await asyncio.create_subprocess_exec(
        *on_leash(sys.executable, "-m", "deploy.local", "--port", "0"),
        *("--database", database, "--directory", str(directory)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert launcher.stdout is not None
    async with asyncio.timeout(_START_SECONDS):
        while b"is up at" not in (line := await launcher.stdout.readline()):
            assert line, "the launcher ended; what it said is above"
    drain = asyncio.create_task(launcher.stdout.read())

    yield RunningMesh(directory)

    launcher.terminate()
    async with asyncio.timeout(_STOP_SECONDS):
        assert await launcher.wait() == 0
    await drain


@pytest.fixture(scope="session", params=["sqlite", "mysql"])
async def mesh(request: pytest.FixtureRequest, scratch: Path) -> AsyncIterator[RunningMesh]:
    """A mesh for the whole session."""
    async with running_mesh(scratch / f"mesh-{request.param}", request.param) as mesh:
        yield mesh


@pytest.fixture
async def shop(mesh: RunningMesh) -> Shop:
    """A store of its own, with its keys."""
    return await mesh.new_shop()
