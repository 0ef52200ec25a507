"""The dashboard's files, as the gateway serves them."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from gateway.config import Settings
from tests.gateway.conftest import Running

DIRECTORY = Path(__file__).parent.parent.parent / "gateway" / "web" / "dashboard"


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """With a dashboard of one page, as `make web-dashboard` would build it."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html><title>A</title>")
    (tmp_path / "pages.json").write_text('["live"]')
    (tmp_path / "assets" / "index-1.js").write_text("const tea = 1;" * 50)
    (tmp_path / "assets" / "index-1.css").write_text("a { color: red }")
    (tmp_path / "assets" / "notes.txt").write_text("ours")
    return Settings(dashboard_directory=tmp_path)


async def test_pages_are_one_document_that_is_looked_at_anew(gateway: Running) -> None:
    for path in ("/", "/live"):
        page = await gateway.http.get(path)
        assert (page.status_code, page.text) == (200, "<!doctype html><title>A</title>")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["cache-control"] == "no-cache"
    missing = await gateway.http.get("/nothing")
    assert missing.json()["error"]["details"][0]["reason"] == "ROUTE_UNKNOWN"


async def test_assets_are_kept_for_ever_and_compressed_for_those_who_take_it(
    gateway: Running,
) -> None:
    script = await gateway.http.get("/assets/index-1.js")
    plain = await gateway.http.get("/assets/index-1.js", headers={"Accept-Encoding": "identity"})

    assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert (script.headers["content-encoding"], script.text) == ("gzip", plain.text)
    assert int(script.headers["content-length"]) < len(plain.content)
    assert "content-encoding" not in plain.headers
    assert "Accept-Encoding" in script.headers["vary"]


@pytest.mark.parametrize(
    "path",
    ["/assets/notes.txt", "/assets/../index.html", "/assets/%2e%2e%2findex.html", "/assets/"],
)
async def test_nothing_else_is_served(gateway: Running, path: str) -> None:
    assert (await gateway.http.get(path)).status_code == 404


async def test_pages_may_load_nothing_from_elsewhere_nor_be_framed(gateway: Running) -> None:
    headers = (await gateway.http.get("/")).headers

    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert "geolocation=()" in headers["permissions-policy"]


@pytest.mark.parametrize("settings", [None], indirect=False)
async def test_the_built_dashboard_is_small(settings: None) -> None:
    """At most 150 KB in all, as it goes over the wire."""
    built = DIRECTORY / "dist"
    files = [path for path in built.rglob("*") if path.is_file()]

    sizes = {path.name: len(gzip.compress(path.read_bytes())) for path in files}

    assert any(name.endswith(".js") for name in sizes), "run `make web`"
    assert sum(sizes.values()) <= 150 * 1024, sizes


async def test_every_page_of_the_script_has_a_path() -> None:
    paths = set(json.loads((DIRECTORY / "src" / "pages.json").read_text())) | {""}
    listed = (DIRECTORY / "src" / "pages.ts").read_text()

    assert set(re.findall(r'path: "(.*?)"', listed)) == paths


async def test_without_a_dashboard_the_root_says_how_to_get_one(tmp_path: Path) -> None:
    from gateway.body import Body
    from gateway.dashboard import dashboard_routes
    from gateway.exchange import Request, Response

    fixed, matched = dashboard_routes(tmp_path / "none")

    request = Request("GET", "/", b"", {}, [], Body())
    answer: Response = await fixed["/"].answer(request, {})
    assert answer.status == 404
    assert b"make web-dashboard" in answer.body
    assert matched == []
