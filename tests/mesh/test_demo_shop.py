"""The demo shop on the whole mesh, in a browser: from the click to the arrival in reports."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, expect

from tests.mesh.conftest import RunningMesh
from tests.storefront.conftest import chromium as chromium

# The whole mesh has much to do at first.
expect.set_options(timeout=45_000)
AXE = Path(__file__).parents[2] / "gateway/web/storefront/node_modules/axe-core/axe.min.js"


async def check_accessibility(page: Page) -> None:
    """Nothing that axe finds fault with."""
    # What is just fading in would have too little contrast.
    await page.emulate_media(reduced_motion="reduce")
    await page.evaluate(AXE.read_text())
    found: list[dict[str, Any]] = await page.evaluate(
        "axe.run().then(({violations}) => violations.map(({id, nodes}) => [id, nodes[0].html]))"
    )
    assert found == []


async def losses_of(mesh: RunningMesh, arrived_count: int) -> int:
    """How many events the report on losses misses, once it shows so many that arrived."""
    path = f"/v1/stores/{mesh.announcement['store_uid']}/reports/loss"
    async with asyncio.timeout(45), mesh.client(mesh.announcement["secret_key"]) as client:
        while True:
            report = (await client.get(path)).json()
            if int(report["arrived_count"]) >= arrived_count:
                assert {row["browser"] for row in report["rows"]} <= {"Chrome", "HeadlessChrome"}
                return int(report["lost_count"])
            await asyncio.sleep(0.1)


async def test_a_visit_to_the_demo_shop_shows_in_its_panel_as_it_arrives(
    mesh: RunningMesh, chromium: Browser
) -> None:
    visitor = await chromium.new_context(viewport={"width": 1280, "height": 900})
    page = await visitor.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    await page.goto(f"{mesh.url}/demo")
    panel = page.get_by_label("What Shoptrail hears")
    await expect(panel.get_by_text("kept here")).to_have_count(3)
    await check_accessibility(page)
    assert not [url for url in asked if "/v1/" in url]
    await page.get_by_role("button", name="Yes, count me").click()
    await expect(panel.get_by_text("accepted")).to_have_count(3)

    await page.get_by_label("Search the shop").fill("clay")
    await page.keyboard.press("Enter")
    await page.get_by_role("link", name="Clay Teapot").click()
    await page.get_by_label("How many").fill("2")
    await page.get_by_role("button", name="Add to cart").click()
    await check_accessibility(page)
    await page.get_by_role("link", name="See it").click()
    await page.get_by_label("Coupon").fill("teatime")
    await page.get_by_role("button", name="Apply").click()
    await expect(page.get_by_text("TEATIME is applied.")).to_be_visible()
    await check_accessibility(page)
    await page.get_by_role("link", name="Check out").click()
    await check_accessibility(page)
    # 2 × 48.00, less a tenth, and shipping.
    await page.get_by_role("button", name="Pay €91.30").click()
    await page.get_by_role("heading", name="Thank you").wait_for()
    await expect(panel.get_by_role("definition").nth(2)).to_have_text("€91.30")
    await page.get_by_role("button", name="Send one without a name").click()
    await expect(panel.get_by_text("rejected: name_missing")).to_be_visible()
    await page.get_by_role("button", name="Send it back").click()
    await expect(panel.get_by_role("definition").nth(2)).to_have_text("€0.00")
    await check_accessibility(page)

    tracked = await panel.get_by_role("listitem").count()
    await expect(panel.get_by_text("in reports after")).to_have_count(tracked - 1)
    names = await panel.locator(".name").all_text_contents()
    assert [name for name in reversed(names) if not name.startswith("page")] == [
        "Product List Viewed",
        "Promotion Viewed",
        "Products Searched",
        "Product Clicked",
        "Product Viewed",
        "Product Added",
        "Cart Viewed",
        "Coupon Entered",
        "Coupon Applied",
        "Cart Viewed",
        "Checkout Started",
        "Payment Info Entered",
        "Checkout Step Completed",
        "Order Completed",
        "(no name)",
        "Order Refunded",
    ]
    assert await losses_of(mesh, tracked - 1) == 1  # The one without a name.
    assert complaints == []
    # First-party, all of it.
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {
        mesh.url.split("/")[2]
    }
    await visitor.close()


async def test_who_says_no_to_the_demo_shop_is_not_told_of(
    mesh: RunningMesh, chromium: Browser
) -> None:
    visitor = await chromium.new_context()
    page = await visitor.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(f"{mesh.url}/demo")
    await page.get_by_role("button", name="No", exact=True).click()
    await page.get_by_role("link", name="Iron Kettle").click()
    await page.get_by_role("heading", name="Iron Kettle").wait_for()
    await page.reload()
    await page.wait_for_timeout(300)

    assert not [url for url in asked if "/v1/" in url]
    assert await visitor.cookies() == []
    await visitor.close()
