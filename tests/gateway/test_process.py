"""The gateway as a process: how it starts and how it stops."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from common.tls import Certificates
from deploy.local.ports import reserved
from shoptrail.ingest.v1 import ingest_pb2
from tests.gateway.conftest import WRITE_KEY, Mesh

EVENT = {"event": "Viewed", "writeKey": WRITE_KEY}


@pytest.fixture
def port() -> Iterator[int]:
    with reserved(1) as (free,):
        yield free


@asynccontextmanager
async def running(environment: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m gateway` with this environment; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway"),
        env={"PATH": os.environ["PATH"], **environment},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def environment_of(
    mesh: Mesh, certificates: Certificates, directory: Path, port: int
) -> dict[str, str]:
    """What the gateway needs to know to serve over the mesh at the port."""
    tls = {
        "CERTIFICATE": certificates.certificate,
        "KEY": certificates.key,
        "AUTHORITY": certificates.authority,
    }
    environment = {"GATEWAY_LISTEN_ADDRESS": f"127.0.0.1:{port}", "GATEWAY_DRAIN_SECONDS": "0.6"}
    for name, content in tls.items():
        (directory / name).write_bytes(content)
        environment[f"GATEWAY_TLS_{name}"] = str(directory / name)
    for name, service_port in mesh.ports.items():
        environment[f"GATEWAY_{name.upper()}_ADDRESS"] = f"127.0.0.1:{service_port}"
    return environment


async def read_status(http: httpx.AsyncClient, path: str) -> int | None:
    """The status of the path; None if nobody answers."""
    try:
        return (await http.get(path)).status_code
    except (httpx.ConnectError, httpx.RemoteProtocolError):  # Gone, or just going.
        return None


async def test_it_becomes_ready_and_leaves_without_dropping_a_request(
    mesh: Mesh, certificates: Mapping[str, Certificates], tmp_path: Path, port: int
) -> None:
    called, let_go = asyncio.Event(), asyncio.Event()

    async def append_late(request: ingest_pb2.AppendRequest) -> ingest_pb2.AppendResponse:
        called.set()
        await let_go.wait()
        return await mesh.append(request)

    mesh.ingest.answers["Append"] = append_late
    environment = environment_of(mesh, certificates["gateway"], tmp_path, port)
    async with (
        running(environment) as process,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as http,
    ):
        for _ in range(400):
            if await read_status(http, "/readyz") == 200:
                break
            await asyncio.sleep(0.05)

        under_way = asyncio.create_task(http.post("/v1/t", json=EVENT))
        await called.wait()
        process.send_signal(signal.SIGTERM)
        for _ in range(20):
            if await read_status(http, "/readyz") == 503:
                break
            await asyncio.sleep(0.02)
        assert await read_status(http, "/healthz") == 200
        for _ in range(100):
            if await read_status(http, "/healthz") is None:
                break
            await asyncio.sleep(0.05)
        assert not under_way.done()
        let_go.set()

        assert (await under_way).json()["accepted"] == 1
        _, errors = await asyncio.wait_for(process.communicate(), 10)
        assert process.returncode == 0
        lines = [json.loads(line) for line in errors.splitlines()]
        assert {line["process"] for line in lines} == {"gateway"}
        assert [lines[0]["event"], lines[-1]["event"]] == ["serving", "stopped"]


async def test_it_names_everything_that_its_environment_lacks() -> None:
    async with running({"GATEWAY_DRAIN_SECONDS": "soon"}) as process:
        _, errors = await asyncio.wait_for(process.communicate(), 20)

    assert process.returncode == 1
    for name in (
        "GATEWAY_LISTEN_ADDRESS",
        "GATEWAY_INGEST_ADDRESS",
        "GATEWAY_QUERY_ADDRESS",
        "GATEWAY_KEYS_ADDRESS",
        "GATEWAY_MAINTENANCE_ADDRESS",
        "GATEWAY_TLS_CERTIFICATE",
        "GATEWAY_DRAIN_SECONDS",
    ):
        assert name in errors.decode()
