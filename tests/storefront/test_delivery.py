"""That nothing is lost, or sent twice, between a shop's page and the gateway."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, Route

from common.errors import DependencyUnavailable
from gateway.config import Settings
from shoptrail.ingest.v1 import ingest_pb2
from tests.gateway.conftest import WRITE_KEY, Mesh, Running
from tests.sdks.conftest import count_answers, refuse_at_first
from tests.storefront.conftest import (
    Shop,
    events_when,
    losses_of,
    names,
    number_of,
    ready,
    sent_twice,
    tag_of,
)

FUNNEL = [
    ("page", "/"),
    ("Products Searched", {"query": "oolong"}),
    ("Product List Viewed", {"list_id": "search"}),
    ("Product Clicked", {"product_id": "42"}),
    ("page", "/pot"),
    ("Product Viewed", {"product_id": "42", "price": "19.90", "currency": "EUR"}),
    ("Product Added", {"product_id": "42", "quantity": 2}),
    ("page", "/cart"),
    ("Cart Viewed", {"cart_id": "c-1"}),
    ("page", "/checkout"),
    ("Checkout Started", {"order_id": "o-1", "value": "39.80", "currency": "EUR"}),
    ("Payment Info Entered", {"order_id": "o-1", "payment_method": "card"}),
    ("page", "/thanks"),
    ("Order Completed", {"order_id": "o-1", "total": "39.80", "currency": "EUR"}),
]


def numbers_are_whole(events: list[dict[str, Any]]) -> bool:
    """Whether no visitor's numbers have a gap, or an event twice."""
    by_visitor: dict[str, list[int]] = {}
    for event in events:
        by_visitor.setdefault(event["context"]["shoptrail"]["visitor"], []).append(number_of(event))
    return all(sorted(each) == list(range(1, len(each) + 1)) for each in by_visitor.values())


async def test_the_whole_funnel_arrives_page_after_page(
    shop: Shop, mesh: Mesh, visitor: BrowserContext
) -> None:
    page = await visitor.new_page()
    for step, given in FUNNEL:
        if step == "page":
            await page.goto(shop.put(str(given)))
            await ready(page)
        else:
            # And the visitor goes on at once.
            await page.evaluate("([step, given]) => shoptrail.track(step, given)", [step, given])
    events = await events_when(mesh, len(FUNNEL))

    assert names(events) == [step for step, _ in FUNNEL]
    assert numbers_are_whole(events)
    assert len({event["anonymousId"] for event in events}) == 1
    (cookie,) = await visitor.cookies()
    assert (cookie["name"], cookie["value"]) == ("shoptrail_id", events[0]["anonymousId"])


async def test_what_happened_offline_arrives_days_later_with_its_own_times(
    shop: Shop, mesh: Mesh, visitor: BrowserContext
) -> None:
    page = await visitor.new_page()
    began = datetime.now(UTC)
    await page.clock.install(time=began)
    await page.goto(shop.put("/"))
    await page.clock.run_for(200)
    await events_when(mesh, 1)
    await visitor.set_offline(True)
    for _ in range(3):
        await page.evaluate("shoptrail.track('Product Viewed', {product_id: '42'})")
        await page.clock.fast_forward(24 * 3600 * 1000)
    await visitor.set_offline(False)
    await page.clock.run_for(2000)
    events = await events_when(mesh, 4)

    assert names(events) == ["page"] + 3 * ["Product Viewed"]
    times = [datetime.fromisoformat(event["originalTimestamp"]) for event in events]
    days = [round((time - began) / timedelta(days=1)) for time in sorted(times)]
    assert days == [0, 0, 1, 2]
    # By which Ingest knows how long ago they happened, whatever the visitor's clock says.
    sent = mesh.appended[-1].sent_time.ToDatetime(tzinfo=UTC)
    assert round((sent - began) / timedelta(days=1)) == 3


# Each buys as soon as the script is there, and is closed in the same breath.
CHECKOUT = """<script>
function buy() {
  const number = new URLSearchParams(location.search).get("number");
  shoptrail.orderCompleted({order_id: `o-${number}`, total: "19.90", currency: "EUR"});
  opener?.postMessage(number);
  if (opener) close();
}
</script>"""
# Opens them five at a time.
BUY = """async ([first, last]) => {
  const bought = (number) => new Promise((resolve) => {
    addEventListener("message", (event) => event.data === `${number}` && resolve());
    open(`/checkout?number=${number}`);
  });
  for (let number = first; number < last; number += 5)
    await Promise.all([0, 1, 2, 3, 4].map((each) => bought(number + each)));
}"""


async def _buy_and_crash(shop: Shop, visitor: BrowserContext, number: int) -> None:
    """As when the browser runs out of memory: no handler of the page runs."""
    page = await visitor.new_page()
    await page.goto(f"{shop.origin}/checkout?number={number}")
    await ready(page)
    await page.evaluate("buy()")
    session = await visitor.new_cdp_session(page)
    crash = asyncio.ensure_future(session.send("Page.crash"))
    await page.wait_for_event("crash")
    crash.cancel()
    await page.close()


async def test_of_100_tabs_closed_in_mid_purchase_no_order_is_lost(
    shop: Shop, mesh: Mesh, visitor: BrowserContext
) -> None:
    onload = shop.tag.replace("<script async", '<script async onload="opener && buy()"')
    shop.put("/checkout", tag=CHECKOUT + onload)
    opener = await visitor.new_page()
    await opener.goto(shop.put("/", tag=""))
    await opener.evaluate(BUY, [0, 45])
    for number in range(90, 95):
        await _buy_and_crash(shop, visitor, number)
    # For the second half of them the database is away.
    mesh.ingest.answers["Append"] = _refuse
    await opener.evaluate(BUY, [45, 90])
    for number in range(95, 100):
        await _buy_and_crash(shop, visitor, number)
    mesh.ingest.answers["Append"] = mesh.append

    page = await visitor.new_page()
    # Later than any page could still wait for an answer.
    await page.clock.install(time=datetime.now(UTC) + timedelta(minutes=10))
    await page.goto(shop.put("/again"))
    await page.clock.run_for(1000)
    events = await events_when(mesh, 201)

    orders = Counter(event["properties"].get("order_id") for event in events)
    del orders[None]
    assert orders == {f"o-{number}": 1 for number in range(100)}
    assert names(events).count("page") == 101
    assert await losses_of(events) == (201, 0)
    # Which it would have told.
    known = [event for event in events if event["properties"].get("order_id") != "o-50"]
    assert await losses_of(known) == (200, 1)
    await nothing_kept(page)


ANY_KEPT = "Object.keys(localStorage).some((name) => name.startsWith('shoptrail.e.'))"


async def nothing_kept(page: Page) -> None:
    """Wait until no event is left on the visitor's device."""
    async with asyncio.timeout(10):
        while await page.evaluate(ANY_KEPT):
            await page.evaluate("shoptrail.flush()")


async def _refuse(request: ingest_pb2.AppendRequest) -> ingest_pb2.AppendResponse:
    raise DependencyUnavailable


async def test_tabs_side_by_side_send_each_event_once(
    shop: Shop, mesh: Mesh, visitor: BrowserContext
) -> None:
    pages = [await visitor.new_page() for _ in range(3)]
    for page in pages:
        await page.goto(shop.put("/"))
        await ready(page)
    script = """async (tab) => {
        for (let number = 0; number < 40; number += 1) {
            shoptrail.track("Product Viewed", {product_id: `${tab}-${number}`});
            if (number % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 60));
        }
    }"""
    await asyncio.gather(*(page.evaluate(script, tab) for tab, page in enumerate(pages)))
    events = await events_when(mesh, 123)

    assert len({event["anonymousId"] for event in events}) == 1
    assert sent_twice(mesh) == 0


async def test_pages_without_any_storage_are_told_of_too(
    shop: Shop, mesh: Mesh, visitor: BrowserContext
) -> None:
    # A sandbox has no origin, and so neither storage nor cookies nor locks.
    shop.headers = [(b"content-security-policy", b"sandbox allow-scripts")]
    page = await visitor.new_page()
    await page.goto(shop.put("/"))
    await ready(page)
    assert (
        await page.evaluate("() => { try { return localStorage } catch { return 'blocked' } }")
        == "blocked"
    )
    await page.evaluate("shoptrail.track('Cart Viewed')")
    await events_when(mesh, 2)
    await page.evaluate("shoptrail.track('Checkout Started')")
    await page.goto(shop.put("/next"))
    events = await events_when(mesh, 4)

    assert sorted(names(events)) == sorted(["page", "Cart Viewed", "Checkout Started", "page"])
    assert numbers_are_whole(events)
    assert sent_twice(mesh) == 0


async def test_when_the_shop_has_filled_local_storage_events_are_kept_elsewhere(
    shop: Shop, mesh: Mesh, visitor: BrowserContext
) -> None:
    page = await visitor.new_page()
    await page.goto(shop.put("/"))
    await events_when(mesh, 1)
    await visitor.set_offline(True)
    await page.evaluate("""async () => {
        for (let size = 1 << 22; size; size >>= 1)
            for (;;)
                try { localStorage.setItem(`junk${Math.random()}`, "x".repeat(size)) }
                catch { break }
        shoptrail.track("Cart Viewed");
        await new Promise((resolve) => setTimeout(resolve, 300));
    }""")
    await page.close()
    await visitor.set_offline(False)
    page = await visitor.new_page()
    await page.goto(f"{shop.origin}/")
    events = await events_when(mesh, 3)

    assert sorted(names(events)) == ["Cart Viewed", "page", "page"]
    await page.evaluate("shoptrail.flush()")
    assert sent_twice(mesh) == 0


async def test_more_than_can_be_kept_is_dropped_from_its_beginning_and_shows_as_a_gap(
    shop: Shop, mesh: Mesh, visitor: BrowserContext
) -> None:
    page = await visitor.new_page()
    await page.goto(shop.put("/"))
    await events_when(mesh, 1)
    await visitor.set_offline(True)
    await page.evaluate("""async () => {
        for (let number = 0; number < 1100; number += 1)
            shoptrail.track("Product Viewed", {number});
        await new Promise((resolve) => setTimeout(resolve, 200));
    }""")
    await visitor.set_offline(False)
    events = await events_when(mesh, 1001)

    assert sorted(map(number_of, events)) == [1, *range(102, 1102)]
    assert max(len(submission.payloads) for submission in mesh.appended) <= 100


async def test_large_events_leave_the_page_in_pieces_that_browsers_let_go(
    shop: Shop, mesh: Mesh, visitor: BrowserContext
) -> None:
    page = await visitor.new_page()
    await page.goto(shop.put("/"))
    await events_when(mesh, 1)
    # 20 events of 6 kB, which are twice what may be on its way when a page goes.
    await page.evaluate("""() => {
        for (let number = 0; number < 20; number += 1)
            shoptrail.track("Product Viewed", {number, text: "茶".repeat(2000)});
    }""")
    await page.goto(shop.put("/next"))
    events = await events_when(mesh, 22)

    # Some more than once, since nobody saw the answer; they count once.
    assert numbers_are_whole(events)


async def test_a_slow_network_loses_nothing(
    shop: Shop, mesh: Mesh, visitor: BrowserContext
) -> None:
    page = await visitor.new_page()
    session = await visitor.new_cdp_session(page)
    conditions = {"offline": False, "latency": 400, "downloadThroughput": 8000}
    await session.send("Network.emulateNetworkConditions", {**conditions, "uploadThroughput": 8000})
    await page.goto(shop.put("/"))
    await ready(page)
    for number in range(5):
        await page.evaluate("number => shoptrail.track('Product Viewed', {number})", number)
        await asyncio.sleep(0.15)
    events = await events_when(mesh, 6)

    assert numbers_are_whole(events)
    assert sent_twice(mesh) == 0


@pytest.mark.parametrize(
    "settings", [{"key_events_per_second": 0.125, "key_event_burst": 1}], indirect=True
)
async def test_a_gateway_that_answers_429_is_left_alone_for_as_long_as_it_says(
    shop: Shop, mesh: Mesh, gateway: Running, visitor: BrowserContext, settings: Settings
) -> None:
    page = await visitor.new_page()
    async with page.expect_response("**/v1/batch"):
        await page.goto(shop.put("/"))
    async with page.expect_response("**/v1/batch") as refused:
        await page.evaluate("shoptrail.track('Cart Viewed')")
    assert (await refused.value).status == 429
    # Neither another page nor more events make it ask earlier.
    await page.goto(shop.put("/next"))
    events = await events_when(mesh, 3)

    assert numbers_are_whole(events)
    assert await count_answers(gateway, 429) == 1


async def know_key(gateway: Running) -> None:
    """Have the gateway know the key: on a busy machine Keys may be slow, and that is a 503 too."""
    settings = f"/v1/projects/{WRITE_KEY}/settings"
    while (await gateway.http.get(settings)).headers["cache-control"] == "no-store":
        pass  # They are told in any case, but not to be kept if Keys didn't answer in time.


async def test_what_was_answered_503_comes_again(
    shop: Shop, mesh: Mesh, gateway: Running, visitor: BrowserContext
) -> None:
    await know_key(gateway)
    refuse_at_first(mesh, 3)
    page = await visitor.new_page()
    await page.goto(shop.put("/"))
    events = await events_when(mesh, 1)

    assert names(events) == ["page"]
    assert await count_answers(gateway, 503) == 1
    # It was told when to come back.
    assert len(mesh.ingest.requests("Append")) == 4


@pytest.fixture
async def silent() -> AsyncIterator[str]:
    """The address of a gateway that takes requests and never answers."""

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass
        writer.close()

    server = await asyncio.start_server(keep, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_a_gateway_that_never_answers_holds_nothing_up(
    shop: Shop, mesh: Mesh, gateway: Running, visitor: BrowserContext, silent: str
) -> None:
    page = await visitor.new_page()
    await page.clock.install()
    shop.put("/", tag=tag_of(gateway, endpoint=f"{silent}/v1/batch"))
    await page.goto(f"{shop.origin}/")
    async with page.expect_request(f"{silent}/v1/batch"):
        await page.clock.run_for(200)
    async with page.expect_event("requestfailed"):
        await page.clock.run_for(15_000)
    # It backs off, and the next page finds the event where it was.
    assert await page.evaluate("Number(localStorage['shoptrail.wait']) > Date.now()")
    await page.clock.run_for(500)
    await page.goto(shop.put("/next"))
    await page.clock.run_for(30_000)
    events = await events_when(mesh, 2)

    assert numbers_are_whole(events)


async def test_an_answer_that_is_not_the_gateways_is_no_answer(
    shop: Shop, mesh: Mesh, visitor: BrowserContext
) -> None:
    page = await visitor.new_page()
    signs_in = 1

    async def capture(route: Route) -> None:
        """A hotel's network, until the visitor has signed in."""
        nonlocal signs_in
        if signs_in:
            signs_in -= 1
            await route.fulfill(status=200, body="<h1>Welcome to our hotel</h1>")
        else:
            await route.continue_()

    await page.route("**/v1/batch", capture)
    await page.goto(shop.put("/"))

    assert names(await events_when(mesh, 1)) == ["page"]


async def test_one_event_that_cannot_be_read_does_not_keep_the_others(
    shop: Shop, mesh: Mesh, visitor: BrowserContext
) -> None:
    page = await visitor.new_page()
    await page.goto(shop.put("/"))
    await events_when(mesh, 1)

    async def refuse_bad(route: Route) -> None:
        """A proxy that doesn't let a word pass."""
        if "forbidden" in (route.request.post_data or ""):
            await route.fulfill(status=400, json={"success": False, "code": "no", "message": "no"})
        else:
            await route.continue_()

    await page.route("**/v1/batch", refuse_bad)
    await page.evaluate("""() => ["a", "b", "forbidden", "c", "d"]
        .forEach((word) => shoptrail.track("Product Viewed", {word}))""")
    events = await events_when(mesh, 5)

    assert [event["properties"].get("word") for event in events[1:]] == ["a", "b", "c", "d"]
    assert sorted(map(number_of, events)) == [1, 2, 3, 5, 6]


async def test_what_somebody_else_has_spoilt_on_the_device_holds_nothing_up(
    shop: Shop, mesh: Mesh, visitor: BrowserContext
) -> None:
    page = await visitor.new_page()
    await page.goto(shop.put("/before", tag=""))
    await page.evaluate("""() => {
        localStorage["shoptrail.e.1-bad"] = "0000000000000no json";
        localStorage["shoptrail.e.2-bad"] = "?";
        localStorage["shoptrail.visitor"] = "[7";
        localStorage["shoptrail.wait"] = "soon";
    }""")
    await page.goto(shop.put("/"))
    await ready(page)
    await page.evaluate("shoptrail.track('Cart Viewed')")

    assert names(await events_when(mesh, 2)) == ["page", "Cart Viewed"]
    await nothing_kept(page)


async def test_the_page_is_told_what_became_of_each_event(
    shop: Shop, mesh: Mesh, visitor: BrowserContext
) -> None:
    page: Page = await visitor.new_page()
    await page.add_init_script("""
        window.told = [];
        document.addEventListener("shoptrail", ({detail}) => told.push(detail));
    """)
    await page.goto(shop.put("/"))
    await ready(page)
    await page.evaluate("shoptrail.track('')")
    await page.wait_for_function(
        "told.filter((each) => each.status).flatMap((e) => e.ids).length > 1"
    )
    told = await page.evaluate("told")

    assert [each["event"]["type"] for each in told if "event" in each] == ["page", "track"]
    answers = [each["answer"] for each in told if "status" in each]
    assert sum(answer["accepted"] for answer in answers) == 1
    (result,) = [result for answer in answers for result in answer["results"]]
    assert (result["verdict"], result["code"]) == ("rejected", "name_missing")
