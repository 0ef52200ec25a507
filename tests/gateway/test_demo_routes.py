"""The demo shop as the gateway serves it: only where it is configured, and no more than it must."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from gateway.config import Settings
from tests.gateway.conftest import SECRET_KEY, STORE, WRITE_KEY, Mesh, Running


@pytest.fixture
def store_file(tmp_path: Path) -> Path:
    path = tmp_path / "demo-shop.json"
    store = {"store_uid": STORE, "write_key": WRITE_KEY, "reading_key": SECRET_KEY}
    path.write_text(json.dumps(store))
    return path


@pytest.fixture
def settings(request: pytest.FixtureRequest, store_file: Path) -> Settings:
    """Of a gateway with a demo shop, unless a test says otherwise."""
    how = getattr(request, "param", "shop")
    if how == "file is missing":
        store_file.unlink()
    return Settings(demo_shop=None if how == "not told to" else store_file)


def links_in(page: httpx.Response) -> list[str]:
    """What the page loads from the shop itself."""
    return [part.split('"')[0] for part in page.text.split('="/demo/assets/')[1:]]


async def test_every_address_of_the_shop_is_the_same_page_with_a_strict_policy(
    gateway: Running,
) -> None:
    pages = [await gateway.http.get(path) for path in ("/demo", "/demo/", "/demo/products/pot")]

    assert [page.status_code for page in pages] == [200, 200, 200]
    assert pages[0].content == pages[2].content
    assert f'data-key="{WRITE_KEY}"' in pages[0].text
    assert SECRET_KEY not in pages[0].text
    policy = pages[0].headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
    assert "unsafe" not in policy
    # Nothing from elsewhere.
    assert "http" not in pages[0].text
    for name in links_in(pages[0]):
        asset = await gateway.http.get(f"/demo/assets/{name}")
        assert (asset.status_code, asset.headers["x-content-type-options"]) == (200, "nosniff")
        assert "immutable" in asset.headers["cache-control"]
    assert (await gateway.http.get("/demo/assets/other.js")).status_code == 404


async def test_the_panel_reads_what_it_shows_and_nothing_else(gateway: Running, mesh: Mesh) -> None:
    events = await gateway.http.get(
        "/demo/reports/events", params={"anonymous_id": "me"}, headers={"Origin": "http://a.test"}
    )
    others = [
        await gateway.http.get(f"/demo/reports/{name}")
        for name in ("reports", "..%2F..%2Fkeys", "counts/more", "funnel")
    ]

    assert events.status_code == 200
    (asked,) = mesh.services["query"].requests("ListVisitorEvents")
    assert (asked.store_uid, asked.anonymous_id) == (STORE, "me")
    # What is no name of a report is a page of the shop at most.
    assert [answer.status_code for answer in others] == [404, 200, 200, 404]
    assert len(mesh.services["query"].calls) == 1


@pytest.mark.parametrize("settings", ["not told to", "file is missing"], indirect=True)
async def test_a_gateway_without_a_demo_store_has_no_shop(gateway: Running) -> None:
    for path in ("/demo", "/demo/reports/counts"):
        assert (await gateway.http.get(path)).status_code == 404
