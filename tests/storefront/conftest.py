"""A shop with its own web server, the gateway over fake services, and Chromium in between."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from common.uid import new_uid
from gateway.exchange import Request, Response
from gateway.http_server import serve_http
from gateway.storefront_files import BUILT
from services.query.duck import DuckColumns
from services.query.freshness import Cursor
from services.query.projection import fold
from tests.gateway.conftest import WRITE_KEY, Mesh, Running
from tests.gateway.conftest import channels as channels
from tests.gateway.conftest import clock as clock
from tests.gateway.conftest import doorway as doorway
from tests.gateway.conftest import gateway as gateway
from tests.gateway.conftest import mesh as mesh
from tests.gateway.conftest import settings as settings
from tests.gateway.conftest import standing_mesh as standing_mesh
from tests.sdks.conftest import arrived
from tests.services.query.fake_ingest import happened

_SECONDS = 20


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """A browser for the session."""
    if not (BUILT / "shoptrail.js").exists():
        raise SystemExit("The script is missing: run `make web-storefront`.")
    path = shutil.which("chromium")
    assert path, "there is no chromium: run `make browser`"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        await browser.close()


@pytest.fixture
async def visitor(chromium: Browser) -> AsyncIterator[BrowserContext]:
    """A visitor whom nobody knows; its pages may not fail unseen."""
    context = await chromium.new_context()
    failures: list[str] = []
    context.on("weberror", lambda error: failures.append(str(error.error)))
    yield context
    await context.close()
    assert not failures


@dataclass
class Shop:
    """A shop's web server: the pages that a test gives it, with the headers that it gives."""

    tag: str
    """What loads the script, with this test's attributes."""
    origin: str = ""
    pages: dict[str, str] = field(default_factory=dict)
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def put(self, path: str, body: str = "", *, tag: str | None = None) -> str:
        """Have a page; returns its address."""
        self.pages[path] = (
            f'<!doctype html><html lang="en"><head><title>Tea {path}</title>'
            f"{self.tag if tag is None else tag}</head><body>{body}</body></html>"
        )
        return f"{self.origin}{path}"

    async def __call__(self, request: Request) -> Response:
        """Serve a page."""
        page = self.pages.get(request.path)
        return Response(
            404 if page is None else 200,
            (page or "").encode(),
            b"text/html; charset=utf-8",
            headers=tuple(self.headers),
            caching=b"",
        )


def script_tag(url: str, **attributes: str) -> str:
    """The one line, with `data-` before each attribute."""
    written = "".join(f' data-{name}="{value}"' for name, value in attributes.items())
    return f'<script async src="{url}/shoptrail.js"{written}></script>'


@pytest.fixture
async def shop(gateway: Running) -> AsyncIterator[Shop]:
    """A shop whose pages load the script from the gateway."""
    shop = Shop(script_tag(f"http://127.0.0.1:{gateway.port}", key=WRITE_KEY))
    async with serve_http(shop, "127.0.0.1:0", grace_seconds=0.1) as port:
        shop.origin = f"http://127.0.0.1:{port}"
        yield shop


def tag_of(gateway: Running, **attributes: str) -> str:
    """The script's tag with more attributes."""
    return script_tag(f"http://127.0.0.1:{gateway.port}", key=WRITE_KEY, **attributes)


async def ready(page: Page) -> Page:
    """The page, once the script runs in it."""
    await page.wait_for_function("window.shoptrail && shoptrail.flush")
    return page


async def events_when(
    mesh: Mesh, enough: Callable[[list[dict[str, Any]]], bool] | int
) -> list[dict[str, Any]]:
    """The events that Ingest has accepted, once there are so many, or once they are as wished."""
    async with asyncio.timeout(_SECONDS):
        while True:
            events = arrived(mesh)
            if len(events) >= enough if isinstance(enough, int) else enough(events):
                return events
            mesh.news.clear()
            await mesh.news.wait()


def names(events: list[dict[str, Any]]) -> list[str]:
    """What the events are called, in the order in which the visitor did it."""
    return [
        event.get("event") or event["type"]
        for event in sorted(events, key=lambda each: number_of(each))
    ]


def number_of(event: dict[str, Any]) -> int:
    return int(event["context"]["shoptrail"]["sequence"])


def sent_twice(mesh: Mesh) -> int:
    """How many events reached Ingest more than once."""
    count = sum(len(submission.payloads) for submission in mesh.appended)
    return count - len(arrived(mesh))


async def losses_of(events: list[dict[str, Any]]) -> tuple[int, int]:
    """How many events the report on losses says have arrived, and how many not."""
    now = datetime.now(UTC)
    store_uid = new_uid("sto")
    recorded = [happened(store_uid, at=now, payload=msgspec.json.encode(event)) for event in events]
    for position, event in enumerate(recorded, start=1):
        event.position = position
    projection = fold(recorded, shard=0, after_position=0)
    columns = DuckColumns()
    await columns.add(Cursor(0, projection.position, None), projection.facts)
    losses = await columns.losses(store_uid, [now - timedelta(days=1), now + timedelta(days=1)])
    await columns.close()
    return sum(loss.arrived_count for loss in losses), sum(loss.lost_count for loss in losses)
