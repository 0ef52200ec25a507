"""The whole mesh, as `make run` starts it, and a browser that signs in to its dashboard."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.dashboard.shop_life import faulty, live
from tests.mesh.conftest import RunningMesh, Shop, running_mesh

DASHBOARD = Path(__file__).parent.parent.parent / "gateway" / "web" / "dashboard"
# As long as it may take on a machine that does something else too.
expect.set_options(timeout=30_000)
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
_EVENTS_A_CALL = 200
_TRIES = 10


@pytest.fixture(scope="session")
async def mesh(scratch: Path) -> AsyncIterator[RunningMesh]:
    """A mesh for all tests of the dashboard."""
    async with running_mesh(scratch / "mesh-dashboard", "sqlite") as mesh:
        yield mesh


async def send(mesh: RunningMesh, shop: Shop, events: list[dict[str, Any]]) -> None:
    """Send events as the shop's own server does."""
    async with mesh.client(shop.secret_key) as http:
        for start in range(0, len(events), _EVENTS_A_CALL):
            batch = {"batch": events[start : start + _EVENTS_A_CALL]}
            for _ in range(_TRIES):  # As SDKs do: a machine at its limit answers 503.
                answer = await http.post("/v1/batch", json=batch)
                if answer.status_code != 503:
                    break
            assert answer.status_code == 200


@pytest.fixture(scope="session")
async def busy_shop(mesh: RunningMesh) -> Shop:
    """A shop with ten days behind it, and a few events that were rejected."""
    shop = await mesh.new_shop()
    await send(mesh, shop, list(live(datetime.now(UTC), days=10, visits_a_day=25)))
    await send(mesh, shop, list(faulty(3)))
    return shop


@pytest.fixture(scope="session")
async def new_shop(mesh: RunningMesh) -> Shop:
    """A shop that has nothing yet."""
    return await mesh.new_shop()


@dataclass
class Visit:
    """A page of the dashboard that somebody is signed in to, and what went wrong on it."""

    page: Page
    url: str
    faults: list[str] = field(default_factory=list)
    refused_with: int | None = None
    """The status that something is meant to be refused with, of which browsers complain."""

    async def go(self, path: str) -> None:
        """Open a page, and wait until it shows what it has."""
        await self.page.goto(f"{self.url}/{path}")
        await self.page.locator("h1").wait_for()
        await self.settle()

    async def settle(self) -> None:
        """Wait until nothing more is being loaded."""
        await self.page.wait_for_function(
            "() => !document.querySelector('.waiting, [aria-busy=true]')"
        )

    async def sign_in(self, key: str) -> None:
        await self.page.goto(self.url)
        await self.page.get_by_label("Secret key").fill(key)
        await self.page.get_by_role("button", name="Sign in").click()
        await self.page.locator("h1:not(.brand)").wait_for()


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The system's Chromium."""
    chromium = shutil.which("chromium")
    assert chromium, "there is no chromium: run `make browser`"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=list(_FLAGS))
        yield browser
        await browser.close()


Visiting = Callable[..., Awaitable[Visit]]


@pytest.fixture
async def visiting(browser: Browser, mesh: RunningMesh) -> AsyncIterator[Visiting]:
    """Signs in with a key, in a browser of its own; nothing may have gone wrong at the end."""
    visits: list[Visit] = []

    async def visit(key: str, **options: Any) -> Visit:
        context = await browser.new_context(
            **{
                "viewport": {"width": 1280, "height": 900},
                "locale": "en-GB",
                "timezone_id": "Europe/Berlin",
                **options,
            }
        )
        page = await context.new_page()
        page.set_default_timeout(15_000)
        made = Visit(page, mesh.url)
        visits.append(made)
        page.on(
            "console",
            lambda said: (
                made.faults.append(f"{said.type}: {said.text}")
                if said.type in ("error", "warning")
                else None
            ),
        )
        page.on("pageerror", lambda error: made.faults.append(f"error: {error}"))
        page.on(
            "request",
            lambda asked: (
                None
                if asked.url.startswith((f"{mesh.url}/", "data:", "blob:"))
                else made.faults.append(f"asked another host: {asked.url}")
            ),
        )
        await made.sign_in(key)
        return made

    yield visit
    for each in visits:
        await each.page.context.close()
    assert [
        fault
        for each in visits
        for fault in each.faults
        if f"status of {each.refused_with}" not in fault
    ] == []


@pytest.fixture(scope="session")
def axe() -> str:
    """The script that finds what keeps people with disabilities out."""
    script = DASHBOARD / "node_modules" / "axe-core" / "axe.min.js"
    assert script.exists(), "axe-core is missing: run `make test`"
    return script.read_text()


@pytest.fixture(scope="session")
def operator_key(mesh: RunningMesh) -> str:
    """The text of a key that opens all stores."""
    demo = json.loads((mesh.directory / "sqlite" / "demo.json").read_bytes())
    return str(demo["operator_key"])
