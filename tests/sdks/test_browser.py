"""Storefronts' SDKs in a real browser, from an origin that is not the gateway's."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.config import Settings
from tests.gateway.conftest import WRITE_KEY, Mesh, Running
from tests.sdks.conftest import Browse, arrived, count_answers, of_type, refuse_at_first

STANDARD: dict[str, Any] = {}
BATCHING = {"strategy": "batching", "config": {"size": 10, "timeout": 500}}

REPORT = """
const report = (what) => fetch("/report", {method: "POST", body: JSON.stringify(what)});
addEventListener("error", (event) => report({failed: String(event.message)}));
addEventListener("unhandledrejection", (event) => report({failed: String(event.reason)}));
"""


def segment_page(gateway: Running, delivery: dict[str, Any], script: str) -> str:
    """A page with analytics.js, which learns from its settings where to send."""
    options = {"integrations": {"Segment.io": {"deliveryStrategy": delivery}}}
    load = {"writeKey": WRITE_KEY, "cdnURL": f"http://127.0.0.1:{gateway.port}"}
    return f"""<!doctype html><title>Shop</title>
<script src="/modules/@segment/analytics-next/dist/umd/index.js"></script>
<script>{REPORT}
const analytics = AnalyticsNext.AnalyticsBrowser.load({json.dumps(load)}, {json.dumps(options)});
{script}
</script>"""


def rudderstack_page(gateway: Running, script: str) -> str:
    """A page with RudderStack's SDK."""
    url = json.dumps(f"http://127.0.0.1:{gateway.port}")
    return f"""<!doctype html><title>Shop</title>
<script src="/modules/@rudderstack/analytics-js/dist/npm/modern/bundled/umd/index.js"></script>
<script>{REPORT}
const analytics = new rudderanalytics.RudderAnalytics();
analytics.load({json.dumps(WRITE_KEY)}, {url}, {{configUrl: {url}}});
{script}
</script>"""


IDENTIFY_AND_TRACK = """
(async () => {
  await analytics.identify("ada", {plan: "gold"});
  await analytics.page("Shop", "Home");
  await analytics.group("tea-club", {size: 3});
  await analytics.alias("ada", "anonymous-1");
  await Promise.all(Array.from({length: 25}, (_, number) =>
    analytics.track("Product Viewed", {number, name: "Th\\u00e9 \\ud83c\\udf75"})));
  report("done");
})();
"""


async def wait_for(mesh: Mesh, event_count: int) -> list[dict[str, Any]]:
    """The events, once so many have arrived."""
    async with asyncio.timeout(60):
        while len(arrived(mesh)) < event_count:
            mesh.news.clear()
            await mesh.news.wait()
    return arrived(mesh)


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return sorted(event["properties"]["number"] for event in of_type(events, "track"))


@pytest.mark.parametrize("delivery", [STANDARD, BATCHING], ids=["standard", "batching"])
async def test_analytics_js_sends_every_kind_of_event(
    gateway: Running, mesh: Mesh, browse: Browse, delivery: dict[str, Any]
) -> None:
    reported = await browse({"/": segment_page(gateway, delivery, IDENTIFY_AND_TRACK)})
    events = await wait_for(mesh, 29)

    assert reported == "done"
    assert len(events) == 29
    assert numbers(events) == list(range(25))
    (identified,) = of_type(events, "identify")
    assert (identified["userId"], identified["traits"]) == ("ada", {"plan": "gold"})
    (page,) = of_type(events, "page")
    assert (page["name"], page["category"]) == ("Home", "Shop")
    assert page["properties"]["title"] == "Shop"
    assert [event["groupId"] for event in of_type(events, "group")] == ["tea-club"]
    assert {event["properties"]["name"] for event in of_type(events, "track")} == {"Thé 🍵"}
    assert len({event["anonymousId"] for event in events}) == 1
    (submission, *_) = mesh.appended
    assert submission.client_ip == "127.0.0.1"
    assert "Chrome" in submission.user_agent


@pytest.mark.parametrize(
    "settings", [{"key_events_per_second": 2, "key_event_burst": 1}], indirect=True
)
async def test_analytics_js_waits_as_long_as_it_is_told(
    gateway: Running, mesh: Mesh, browse: Browse, settings: Settings
) -> None:
    script = """
for (let number = 0; number < 5; number += 1) analytics.track("Viewed", {number});
setTimeout(() => analytics.track("Viewed", {number: 5}), 400);
report("sent");
"""
    delivery = {"strategy": "batching", "config": {"size": 5, "timeout": 300}}
    await browse({"/": segment_page(gateway, delivery, script)})
    events = await wait_for(mesh, 6)

    assert numbers(events) == list(range(6))
    # The first batch leaves a debt of two seconds. By itself the SDK would ask every half.
    assert await count_answers(gateway, 429) == 1


@pytest.mark.parametrize("delivery", [STANDARD, BATCHING], ids=["standard", "batching"])
async def test_analytics_js_sends_again_what_was_answered_503(
    gateway: Running, mesh: Mesh, browse: Browse, delivery: dict[str, Any]
) -> None:
    refuse_at_first(mesh, 5)
    script = """
for (let number = 0; number < 5; number += 1) analytics.track("Viewed", {number});
report("sent");
"""
    await browse({"/": segment_page(gateway, delivery, script)})
    events = await wait_for(mesh, 5)

    assert numbers(events) == list(range(5))
    assert await count_answers(gateway, 503) >= 1


async def test_analytics_js_sends_what_it_has_when_the_page_goes(
    gateway: Running, mesh: Mesh, browse: Browse
) -> None:
    script = """
analytics.ready(() => {
  for (let number = 0; number < 5; number += 1) analytics.track("Viewed", {number});
  setTimeout(() => { location.href = "/left"; }, 50);
});
"""
    late = {"strategy": "batching", "config": {"size": 100, "timeout": 60000}}
    left = f"<script>{REPORT}report('left')</script>"

    reported = await browse({"/": segment_page(gateway, late, script), "/left": left})
    events = await wait_for(mesh, 5)

    assert reported == "left"
    assert numbers(events) == list(range(5))


async def test_rudderstack_s_sends_every_kind_of_event(
    gateway: Running, mesh: Mesh, browse: Browse
) -> None:
    script = """
analytics.ready(() => {
  analytics.identify("ada", {plan: "gold"});
  analytics.page("Shop", "Home");
  analytics.group("tea-club", {size: 3});
  for (let number = 0; number < 10; number += 1) analytics.track("Viewed", {number});
  report("done");
});
"""
    reported = await browse({"/": rudderstack_page(gateway, script)})
    events = await wait_for(mesh, 13)

    assert reported == "done"
    assert numbers(events) == list(range(10))
    (identified,) = of_type(events, "identify")
    assert identified["context"]["traits"] == {"plan": "gold"}
    assert {event["userId"] for event in events} == {"ada"}
