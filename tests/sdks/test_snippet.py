"""Pages that load analytics.js from the gateway, by Segment's snippet."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import Settings
from tests.gateway.conftest import WRITE_KEY, Mesh, Running
from tests.sdks.conftest import Browse, of_type
from tests.sdks.test_browser import REPORT, numbers, wait_for


@pytest.fixture
def settings(modules: Path) -> Settings:
    """Of a gateway that serves analytics.js itself."""
    return Settings(analytics_js_directory=modules / "@segment/analytics-next/dist/umd")


async def test_a_page_with_segment_s_snippet_needs_the_gateway_only(
    gateway: Running, mesh: Mesh, browse: Browse
) -> None:
    url = f"http://127.0.0.1:{gateway.port}"
    # What the snippet does: it keeps calls until the script is there, which finds them.
    page = f"""<!doctype html><title>Shop</title><script>{REPORT}
const analytics = window.analytics = [];
for (const name of ["identify", "page", "track"])
  analytics[name] = (...given) => (analytics.push([name, ...given]), analytics);
analytics._writeKey = "{WRITE_KEY}";
analytics._cdn = "{url}";
analytics.identify("ada", {{plan: "gold"}});
for (let number = 0; number < 5; number += 1) analytics.track("Viewed", {{number}});
report("queued");
</script><script async src="{url}/analytics.js/v1/{WRITE_KEY}/analytics.min.js"></script>"""

    await browse({"/": page})
    events = await wait_for(mesh, 6)

    assert numbers(events) == list(range(5))
    assert of_type(events, "identify")[0]["traits"] == {"plan": "gold"}


async def test_the_scripts_are_served_to_be_kept(gateway: Running, modules: Path) -> None:
    (chunk,) = (modules / "@segment/analytics-next/dist/umd").glob("schemaFilter*.js")

    script = await gateway.http.get(f"/analytics.js/v1/{WRITE_KEY}/analytics.min.js")
    part = await gateway.http.get(f"/analytics-next/bundles/{chunk.name}")
    nothing = await gateway.http.get("/analytics-next/bundles/nothing.js")

    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert script.headers["cache-control"] == "public, max-age=300"
    assert part.content == chunk.read_bytes()
    assert part.headers["cache-control"] == "public, max-age=31536000"
    assert nothing.status_code == 404
