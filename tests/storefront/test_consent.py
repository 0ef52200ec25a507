"""That nothing is kept or sent to which the visitor has not agreed, where the shop says so."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page

from tests.gateway.conftest import Mesh, Running
from tests.storefront.conftest import Shop, events_when, names, number_of, ready, tag_of

KEPT = "[...Object.keys(localStorage), ...document.cookie.split('; ').filter(Boolean)]"


async def databases(page: Page) -> list[Any]:
    found: list[Any] = await page.evaluate("indexedDB.databases()")
    return found


async def settle(page: Page) -> None:
    """Longer than the script gathers events before it sends them."""
    await page.wait_for_timeout(300)


async def test_before_consent_nothing_is_kept_nor_sent_and_after_it_nothing_is_missing(
    shop: Shop, mesh: Mesh, gateway: Running, visitor: BrowserContext
) -> None:
    page = await visitor.new_page()
    await page.goto(shop.put("/", tag=tag_of(gateway, consent="required")))
    await ready(page)
    await page.evaluate("shoptrail.track('Product Viewed', {product_id: '42'})")
    await settle(page)
    assert mesh.appended == []
    assert await page.evaluate(KEPT) == []
    assert await databases(page) == []

    await page.evaluate("shoptrail.consent({analytics: true, advertising: false})")
    await page.evaluate("shoptrail.track('Cart Viewed')")
    events = await events_when(mesh, 3)
    # It is remembered on the next page.
    await page.goto(shop.put("/next", tag=tag_of(gateway, consent="required")))
    events = await events_when(mesh, 4)

    assert names(events) == ["page", "Product Viewed", "Cart Viewed", "page"]
    assert len({event["anonymousId"] for event in events}) == 1
    given = {"categoryPreferences": {"analytics": True, "advertising": False}}
    consents = [event["context"].get("consent") for event in events]
    assert consents == [None, None, given, given]


@pytest.mark.parametrize("refusal", ["false", "{analytics: false, functional: true}", "{a: false}"])
async def test_what_a_visitor_has_refused_never_leaves_the_page(
    shop: Shop, mesh: Mesh, gateway: Running, visitor: BrowserContext, refusal: str
) -> None:
    page = await visitor.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method))
    await page.goto(shop.put("/", tag=tag_of(gateway, consent="required")))
    await ready(page)
    await page.evaluate(f"shoptrail.consent({refusal})")
    await page.evaluate("shoptrail.track('Cart Viewed')")
    await settle(page)
    await page.goto(shop.put("/next", tag=tag_of(gateway, consent="required")))
    await settle(page)

    assert await page.evaluate(KEPT) == []
    assert mesh.appended == []
    assert set(asked) == {"GET"}


async def test_who_takes_consent_back_is_forgotten(
    shop: Shop, mesh: Mesh, gateway: Running, visitor: BrowserContext
) -> None:
    page = await visitor.new_page()
    await page.goto(shop.put("/", tag=tag_of(gateway, consent="required")))
    await ready(page)
    await page.evaluate("shoptrail.consent(true)")
    (before,) = await events_when(mesh, 1)
    await page.wait_for_function("!Object.keys(localStorage).some((name) => /[.]e[.]/.test(name))")
    assert await page.evaluate("document.cookie") == f"shoptrail_id={before['anonymousId']}"
    await visitor.set_offline(True)
    await page.evaluate("shoptrail.track('Cart Viewed'), shoptrail.consent(false)")
    assert await page.evaluate(KEPT) == []
    await visitor.set_offline(False)
    await page.evaluate("shoptrail.consent(true), shoptrail.track('Product Viewed')")
    events = await events_when(mesh, 2)

    assert [event.get("event") for event in events] == [None, "Product Viewed"]
    assert events[1]["anonymousId"] != before["anonymousId"]
    assert number_of(events[1]) == 1


async def test_an_objection_is_remembered_where_no_consent_is_asked_for(
    shop: Shop, mesh: Mesh, visitor: BrowserContext
) -> None:
    page = await visitor.new_page()
    await page.goto(shop.put("/"))
    await events_when(mesh, 1)
    await page.evaluate("shoptrail.consent(false)")
    await page.goto(shop.put("/next"))
    await ready(page)
    await settle(page)
    assert await page.evaluate(KEPT) == ["shoptrail.consent"]
    await page.evaluate("shoptrail.consent(true), shoptrail.track('Cart Viewed')")

    assert names(await events_when(mesh, 2)) == ["page", "Cart Viewed"]


async def test_without_cookies_every_page_has_a_visitor_of_its_own(
    shop: Shop, mesh: Mesh, gateway: Running, visitor: BrowserContext
) -> None:
    page = await visitor.new_page()
    for path in ("/", "/next"):
        await page.goto(shop.put(path, tag=tag_of(gateway, consent="cookieless")))
        await ready(page)
        await page.evaluate("shoptrail.track('Cart Viewed')")
        await settle(page)
        assert await page.evaluate(KEPT) == []
    events = await events_when(mesh, 4)
    assert len({event["anonymousId"] for event in events}) == 2

    await page.evaluate("shoptrail.consent(true)")
    await page.goto(f"{shop.origin}/")
    events = await events_when(mesh, 5)
    assert len({event["anonymousId"] for event in events}) == 2


@pytest.mark.parametrize("respected", ["", "dnt", "gpc dnt"])
async def test_a_browser_s_signal_counts_where_the_shop_says_so(
    shop: Shop, mesh: Mesh, gateway: Running, chromium: Browser, respected: str
) -> None:
    visitor = await chromium.new_context(extra_http_headers={"Sec-GPC": "1"})
    # Chromium sends the signal by an extension, which also sets this.
    await visitor.add_init_script("navigator.globalPrivacyControl = true")
    page = await visitor.new_page()
    await page.goto(shop.put("/", tag=tag_of(gateway, respect=respected)))
    await ready(page)
    await settle(page)

    if "gpc" in respected:
        assert mesh.appended == []
        assert await page.evaluate(KEPT) == []
        # The visitor's own word counts more.
        await page.evaluate("shoptrail.consent(true), shoptrail.track('Cart Viewed')")
        assert names(await events_when(mesh, 1)) == ["Cart Viewed"]
    else:
        assert names(await events_when(mesh, 1)) == ["page"]
        assert mesh.appended[0].gpc
    await visitor.close()
