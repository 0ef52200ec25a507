"""What the script tells of a shop's pages."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import httpx
from playwright.async_api import BrowserContext

from deploy.tracking_reference import method_of
from gateway.body import read_body
from gateway.exchange import Request, Response
from gateway.http_server import serve_http
from services.ingest.catalogue import ENTRIES
from tests.gateway.conftest import WRITE_KEY, Mesh, Running
from tests.storefront.conftest import Shop, events_when, names, number_of, ready, script_tag, tag_of


async def test_one_line_starts_page_views(shop: Shop, mesh: Mesh, visitor: BrowserContext) -> None:
    page = await visitor.new_page()
    address = f"{shop.put('/')}?utm_source=mail"
    await page.goto(address, referer="http://search.example/")
    (event,) = await events_when(mesh, 1)

    assert event["type"] == "page"
    assert event["context"]["page"] == {
        "url": address,
        "path": "/",
        "search": "?utm_source=mail",
        "title": "Tea /",
        "referrer": "http://search.example/",
    }
    assert event["context"]["shoptrail"]["sequence"] == 1
    (submission,) = mesh.appended
    assert "Chrome" in submission.user_agent
    sent = submission.sent_time.ToDatetime(tzinfo=UTC)
    made = datetime.fromisoformat(event["originalTimestamp"])
    assert timedelta(0) <= sent - made < timedelta(seconds=10)


async def test_calls_from_before_the_script_was_there_are_not_lost(
    shop: Shop, mesh: Mesh, visitor: BrowserContext
) -> None:
    early = """<script>window.shoptrail = window.shoptrail || [];
shoptrail.push(["identify", "ada", {plan: "gold"}]);
shoptrail.push(["track", "Product Viewed", {product_id: "42"}]);</script>"""
    page = await visitor.new_page()
    await page.goto(shop.put("/", tag=early + shop.tag))
    await events_when(mesh, 3)
    await page.evaluate("shoptrail.push(['track', 'Cart Viewed'])")
    events = await events_when(mesh, 4)

    assert names(events) == ["page", "identify", "Product Viewed", "Cart Viewed"]
    assert [event.get("userId") for event in events] == [None, "ada", "ada", "ada"]


async def test_every_call_makes_an_event_that_says_who_and_in_which_order(
    shop: Shop, mesh: Mesh, visitor: BrowserContext
) -> None:
    page = await visitor.new_page()
    await page.goto(shop.put("/", tag=tag_of_manual(shop)))
    await ready(page)
    await page.evaluate("""() => {
        shoptrail.page("Home", {season: "autumn"});
        shoptrail.identify(7, {plan: "gold"});
        shoptrail.group("tea-club", {size: 3});
        shoptrail.alias("ada", 7);
        shoptrail.track("Tea Tasted", {sort: "Thé 🍵"}, {messageId: "mine", context: {a: 1}});
        shoptrail.reset();
        shoptrail.track("Tea Tasted");
    }""")
    events = await events_when(mesh, 6)

    (again,) = [event for event in events if event["anonymousId"] != events[0]["anonymousId"]]
    events.remove(again)
    home, identified, grouped, aliased, tasted = sorted(events, key=number_of)
    assert (home["name"], home["properties"]["season"]) == ("Home", "autumn")
    assert (identified["userId"], identified["traits"]) == ("7", {"plan": "gold"})
    assert (grouped["groupId"], grouped["traits"]) == ("tea-club", {"size": 3})
    assert (aliased["userId"], aliased["previousId"]) == ("ada", "7")
    assert (tasted["messageId"], tasted["properties"]) == ("mine", {"sort": "Thé 🍵"})
    assert (tasted["context"]["a"], tasted["context"]["groupId"]) == (1, "tea-club")
    assert "userId" not in again
    assert [number_of(event) for event in (home, tasted, again)] == [1, 5, 1]
    assert again["context"]["shoptrail"]["visitor"] != tasted["context"]["shoptrail"]["visitor"]


def tag_of_manual(shop: Shop) -> str:
    return shop.tag.replace("data-key", 'data-pages="manual" data-key')


async def test_there_is_a_method_for_each_event_of_the_catalogue(
    shop: Shop, mesh: Mesh, visitor: BrowserContext
) -> None:
    methods = [method_of(entry.name) for entry in ENTRIES]
    page = await visitor.new_page()
    await page.goto(shop.put("/", tag=tag_of_manual(shop)))
    await ready(page)
    await page.evaluate(
        "methods => methods.forEach(method => shoptrail[method]({product_id: '42'}))", methods
    )

    events = await events_when(mesh, len(ENTRIES))
    assert names(events) == [entry.name for entry in ENTRIES]
    assert {event["properties"]["product_id"] for event in events} == {"42"}


async def test_pages_that_a_script_shows_one_after_another_are_seen(
    shop: Shop, mesh: Mesh, visitor: BrowserContext
) -> None:
    page = await visitor.new_page()
    await page.goto(shop.put("/"))
    await ready(page)
    await page.evaluate("""async () => {
        const show = async (move, title) => {
            move(); document.title = title;
            await new Promise((resolve) => setTimeout(resolve, 20));
        };
        await show(() => history.pushState({}, "", "/cups?colour=blue"), "Cups");
        await show(() => history.replaceState({scrolled: 40}, ""), "Cups");
        await show(() => history.pushState({}, "", "/cups?colour=blue#top"), "Cups");
        await show(() => history.replaceState({}, "", "/pots"), "Pots");
    }""")
    await page.go_back()
    events = await events_when(mesh, 4)

    seen = [event["context"]["page"] for event in events]
    assert [each["path"] + each["search"] for each in seen] == [
        "/",
        "/cups?colour=blue",
        "/pots",
        "/cups?colour=blue",
    ]
    assert [each["title"] for each in seen][:3] == ["Tea /", "Cups", "Pots"]
    assert seen[1]["referrer"] == f"{shop.origin}/"


async def test_attributes_tell_of_clicks_forms_and_what_a_page_shows(
    shop: Shop, mesh: Mesh, visitor: BrowserContext
) -> None:
    body = """
<main data-shoptrail-event="Product Viewed" data-shoptrail-on="load"
      data-shoptrail-product-id="42" data-shoptrail-price="19.90" data-shoptrail-currency="EUR"
      data-shoptrail-properties='{"tags": ["green", "loose"], "price": 1}'>
  <button data-shoptrail-event="Product Added" data-shoptrail-quantity="2">
    <span id="buy">Buy</span></button>
</main>
<form id="search" action="/found" data-shoptrail-event="Products Searched">
  <input name="q" data-shoptrail-field="query" value="oolong"><button>Search</button>
</form>
<button id="nothing" data-shoptrail-properties="no json">Nothing</button>"""
    shop.put("/found")
    page = await visitor.new_page()
    await page.goto(shop.put("/", body))
    await ready(page)
    await page.click("#buy")
    await page.click("#nothing")
    await page.click("#search button")
    events = await events_when(mesh, 5)

    assert names(events) == ["page", "Product Viewed", "Product Added", "Products Searched", "page"]
    by_name = {event.get("event"): event["properties"] for event in events}
    product = {"product_id": "42", "price": "19.90", "currency": "EUR", "tags": ["green", "loose"]}
    assert by_name["Product Viewed"] == product
    assert by_name["Product Added"] == {**product, "quantity": "2"}
    assert by_name["Products Searched"] == {"query": "oolong"}


async def test_a_shop_may_have_script_and_endpoint_under_a_path_of_its_own(
    shop: Shop, mesh: Mesh, gateway: Running, visitor: BrowserContext
) -> None:
    asked: list[str] = []

    async def pass_on(request: Request) -> Response:
        """The shop's own web server, with `/t/` handed to the gateway."""
        if not request.path.startswith("/t/"):
            return await shop(request)
        asked.append(request.path)
        async with httpx.AsyncClient() as client:
            url = f"http://127.0.0.1:{gateway.port}{request.path.removeprefix('/t')}"
            body = await read_body(request.body)
            answer = await client.request(request.method, url, content=body)
        content_type = answer.headers["content-type"].encode()
        return Response(answer.status_code, answer.content, content_type)

    shop.put("/", tag=f'<script async src="/t/shoptrail.js?key={WRITE_KEY}"></script>')
    async with serve_http(pass_on, "127.0.0.1:0", grace_seconds=0.1) as port:
        page = await visitor.new_page()
        foreign: list[str] = []
        page.on("request", lambda request: foreign.append(request.url))
        await page.goto(f"http://127.0.0.1:{port}/")
        await events_when(mesh, 1)

    assert asked == ["/t/shoptrail.js", "/t/v1/batch"]
    assert all(f":{port}/" in url for url in foreign)


async def test_a_page_with_the_script_twice_counts_once(
    shop: Shop, mesh: Mesh, visitor: BrowserContext
) -> None:
    page = await visitor.new_page()
    await page.goto(shop.put("/", tag=shop.tag * 2))
    await page.wait_for_load_state()
    await ready(page)
    await page.evaluate("shoptrail.track('Cart Viewed')")

    assert names(await events_when(mesh, 2)) == ["page", "Cart Viewed"]


async def test_it_works_under_a_strict_content_security_policy(
    shop: Shop, mesh: Mesh, gateway: Running, visitor: BrowserContext
) -> None:
    url = f"http://127.0.0.1:{gateway.port}"
    policy = (
        f"default-src 'none'; script-src 'nonce-tea' 'strict-dynamic'; connect-src {url};"
        " base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    shop.headers = [(b"content-security-policy", policy.encode())]
    tag = script_tag(url, key=WRITE_KEY).replace("<script", '<script nonce="tea"')
    page = await visitor.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    await page.goto(
        shop.put("/", '<a href="#" data-shoptrail-event="Cart Viewed">Cart</a>', tag=tag)
    )
    await ready(page)
    await page.click("a")

    assert names(await events_when(mesh, 2)) == ["page", "Cart Viewed"]
    assert not [text for text in said if re.search("violates|refused", text, re.IGNORECASE)]


async def test_pages_with_a_wrong_key_lose_nothing_once_it_is_mended(
    shop: Shop, mesh: Mesh, gateway: Running, visitor: BrowserContext
) -> None:
    page = await visitor.new_page()
    url = f"http://127.0.0.1:{gateway.port}"
    async with page.expect_response("**/v1/batch") as refused:
        await page.goto(shop.put("/", tag=script_tag(url, key="pk_live_wrong")))
    assert (await refused.value).status == 401
    await page.goto(shop.put("/", tag=tag_of(gateway)))

    assert names(await events_when(mesh, 2)) == ["page", "page"]
