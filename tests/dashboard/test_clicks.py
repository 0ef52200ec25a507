"""What people do on the dashboard, by clicking and typing."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import time
import zipfile
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.async_api import expect
from segment.analytics import Client

from tests.dashboard.conftest import Visiting, send
from tests.dashboard.shop_life import faulty
from tests.mesh.conftest import RunningMesh, Shop

OURS = {"X-Shoptrail-Session": "1"}


def buy(mesh: RunningMesh, key: str, order_id: str, total: float) -> None:
    """Send what a purchase is told by, with Segment's own SDK."""
    client = Client(key, host=mesh.url)
    client.track("ada", "Product Viewed", {"product_id": "pot-1"})
    client.track(
        "ada", "Order Completed", {"order_id": order_id, "total": total, "currency": "EUR"}
    )
    client.shutdown()


async def test_a_purchase_is_live_within_two_seconds_and_in_the_revenue_to_the_cent(
    mesh: RunningMesh, visiting: Visiting
) -> None:
    shop = await mesh.new_shop()
    visit = await visiting(shop.secret_key)
    page = visit.page
    await visit.go("live")
    await expect(page.get_by_text("Connected")).to_be_visible()

    await asyncio.to_thread(buy, mesh, shop.write_key, "o-1", 1234.56)
    began = time.monotonic()
    order = page.get_by_role("listitem").filter(has_text="Order Completed")
    await expect(order).to_contain_text("€1,234.56")
    assert time.monotonic() - began < 2
    await expect(page.get_by_text("2 accepted, 0 rejected")).to_be_visible()

    await asyncio.to_thread(buy, mesh, shop.write_key, "o-2", 0.07)
    await expect(page.get_by_role("listitem").filter(has_text="€0.07")).to_be_visible()
    await visit.go("")
    await expect(page.locator("[data-metric=revenue]")).to_have_text("€1,234.63")
    await expect(page.locator("[data-metric=orders]")).to_have_text("2")


async def test_the_live_view_is_paused_and_filtered(mesh: RunningMesh, visiting: Visiting) -> None:
    shop = await mesh.new_shop()
    visit = await visiting(shop.secret_key)
    page = visit.page
    await visit.go("live")
    await expect(page.get_by_text("Connected")).to_be_visible()
    await page.get_by_role("button", name="Pause").click()

    await send(mesh, shop, [_track("Tea Poured", "ada"), _track("Cup Broken", "bea")])
    await send(mesh, shop, list(faulty(1)))
    await expect(page.get_by_role("button", name="Go on (3 waiting)")).to_be_visible()
    await expect(page.get_by_text("Tea Poured")).to_have_count(0)
    await page.get_by_role("button", name="Go on").click()

    rows = page.locator(".stream > li")
    await expect(rows).to_have_count(3)
    await page.get_by_label("Find by name or visitor").fill("bea")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("Cup Broken")
    assert parse_qs(urlsplit(page.url).query) == {"find": ["bea"]}
    await page.get_by_label("Find by name or visitor").fill("")
    await page.get_by_role("button", name="Rejected", exact=True).click()
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("name_missing")


async def test_a_key_is_rotated_and_the_old_one_revoked(
    mesh: RunningMesh, visiting: Visiting
) -> None:
    shop = await mesh.new_shop()
    visit = await visiting(shop.secret_key)
    page = visit.page
    await visit.go("keys")
    await page.get_by_role("button", name="New key").click()
    await page.get_by_label("Name").fill("Storefront")
    await page.get_by_role("button", name="Make it").click()
    first = await page.get_by_role("dialog").locator("code").inner_text()
    await page.get_by_role("button", name="Close").click()

    await page.get_by_role("button", name="Rotate Storefront").click()
    await page.get_by_role("button", name="Rotate it").click()
    second = await page.get_by_role("dialog", name="The successor").locator("code").inner_text()
    await page.get_by_role("button", name="Close").click()
    await expect(page.get_by_role("row").filter(has_text="rotated")).to_be_visible()

    assert [await _sends(mesh, key) for key in (first, second)] == [200, 200]
    old = page.get_by_role("row").filter(has_text="rotated")
    await old.get_by_role("button", name="Revoke").click()
    await page.get_by_role("button", name="Revoke it").click()
    await expect(old).to_contain_text("ended")
    async with asyncio.timeout(5):
        while await _sends(mesh, first) == 200:
            pass
    assert [await _sends(mesh, key) for key in (first, second)] == [401, 200]
    trail = page.get_by_role("group", name="The trail").get_by_role("row")
    for action in ("Revoke key", "Rotate key", "Create key"):
        await expect(trail.filter(has_text=action).first).to_be_visible()


async def test_a_deleted_key_is_brought_back(mesh: RunningMesh, visiting: Visiting) -> None:
    shop = await mesh.new_shop()
    visit = await visiting(shop.secret_key)
    page = visit.page
    await visit.go("keys")
    rows = page.get_by_role("group", name="Keys").get_by_role("row")
    await expect(rows).to_have_count(3)

    await page.get_by_role("button", name=re.compile("Delete ")).click()
    await expect(rows).to_have_count(2)
    await page.get_by_role("button", name="Undo").click()
    await expect(rows).to_have_count(3)


async def test_rejected_events_are_fixed_and_replayed(
    mesh: RunningMesh, visiting: Visiting
) -> None:
    shop = await mesh.new_shop()
    await send(mesh, shop, list(faulty(3)))
    visit = await visiting(shop.secret_key)
    page = visit.page
    await visit.go("rejected")
    await page.get_by_role("button", name="Name missing").click()
    await expect(page.get_by_label("Set")).to_have_value("/event")
    await page.get_by_label("to", exact=True).fill("Product Viewed")

    await page.get_by_role("button", name="Try it").click()
    told = page.locator(".card .note")
    await expect(told).to_contain_text("3 events looked at; 3 would be whole.")
    await page.get_by_role("button", name="Fix", exact=True).click()
    await expect(told).to_contain_text("3 events looked at; 3 were whole.")
    await page.get_by_role("button", name="Try the replay").click()
    await expect(told).to_contain_text("3 would be replayed")
    await page.get_by_role("button", name="Replay 3 fixed").click()
    await expect(told).to_contain_text("3 were replayed")

    await expect(page.get_by_text("Nothing is rejected")).to_be_visible()
    await visit.go("delivery")
    await expect(page.get_by_text("3 received = 3 + 0 + 0 + 0 + 0")).to_be_visible()
    async with mesh.client(shop.secret_key) as http:
        events = (await http.get(f"/v1/stores/{shop.store_uid}/events")).json()["events"]
    assert [event["name"] for event in events] == ["Product Viewed"] * 3


async def test_the_shop_s_own_list_is_held_against_what_events_told(
    mesh: RunningMesh, visiting: Visiting
) -> None:
    shop = await mesh.new_shop()
    await send(mesh, shop, [_order("o-1", 68.9), _order("o-2", 12.5), _order("o-3", 7.0)])
    visit = await visiting(shop.secret_key)
    page = visit.page
    await visit.go("reconcile")
    listed = "order_id,total,currency\no-1,68.90,EUR\no-2,12.51,EUR\no-4,1.00,EUR\n"
    file: Any = {"name": "paid.csv", "mimeType": "text/csv", "buffer": listed.encode()}
    await page.get_by_label("File").set_input_files(file)
    await page.get_by_role("button", name="Compare").click()

    for field, expected in {"equal": 1, "missing": 1, "extra": 1, "wrong_amount": 1}.items():
        await expect(page.locator(f"[data-orders={field}_count]")).to_have_text(str(expected))
    differing = page.get_by_role("group", name="Differing orders").get_by_role("row")
    await expect(differing.filter(has_text="o-2")).to_contain_text("€12.51€12.50")
    await expect(page.get_by_text("Your list €82.41, events €88.40")).to_be_visible()


async def test_events_are_saved_as_a_file(mesh: RunningMesh, visiting: Visiting) -> None:
    shop = await mesh.new_shop()
    await send(mesh, shop, [_track("Tea Poured", "ada"), _track("Cup Broken", "bea")])
    visit = await visiting(shop.secret_key)
    page = visit.page
    await visit.go("export")
    await page.get_by_label("Only events of this name").fill("Tea Poured")

    async with page.expect_download() as downloading:
        await page.get_by_role("button", name="Export", exact=True).click()
    download = await downloading.value
    events = [json.loads(line) for line in (await download.path()).read_text().splitlines()]

    assert download.suggested_filename == "events.ndjson"
    assert [(event["name"], event["user_id"]) for event in events] == [("Tea Poured", "ada")]
    await expect(page.get_by_text("1 of 1 events, saved")).to_be_visible()


async def test_a_person_is_exported_and_erased_with_a_receipt(
    mesh: RunningMesh, visiting: Visiting, operator_key: str
) -> None:
    shop = await mesh.new_shop()
    await send(mesh, shop, [_track("Tea Poured", "ada"), _track("Cup Broken", "bea")])
    visit = await visiting(operator_key)
    page = visit.page
    await visit.go(f"people?store={shop.store_uid}")
    await page.get_by_label("User id", exact=True).fill("ada")
    await page.get_by_role("button", name="Open the case").click()

    async with page.expect_download() as downloading:
        await page.get_by_role("button", name="Save the archive").click()
    with zipfile.ZipFile(await (await downloading.value).path()) as archive:
        everything = b"".join(archive.read(name) for name in archive.namelist())
    assert b"Tea Poured" in everything
    assert b"Cup Broken" not in everything

    await page.get_by_role("button", name="Erase", exact=True).click()
    await page.get_by_label("User id", exact=True).fill("ada")
    await page.get_by_role("button", name="Open the case").click()
    await page.get_by_role("button", name="Erase them").click()
    receipt = json.loads(await page.get_by_label("The receipt").inner_text())
    assert receipt["store_uid"] == shop.store_uid
    requests = page.get_by_role("group", name="Requests")
    await expect(requests.get_by_text("done", exact=True)).to_have_count(2)
    async with mesh.client(shop.secret_key) as http:
        listed = (await http.get(f"/v1/stores/{shop.store_uid}/events")).text
    assert "bea" in listed
    assert "ada" not in listed  # What stays of her events tells of nobody.


async def test_it_is_seen_what_a_retention_rule_takes_before_it_is_put(
    mesh: RunningMesh, visiting: Visiting
) -> None:
    shop = await mesh.new_shop()
    visit = await visiting(shop.secret_key)
    page = visit.page
    await visit.go("rules")
    await page.get_by_label("Events named").fill("Tea Poured")
    await page.get_by_label("Days", exact=True).fill("30")

    await page.get_by_role("button", name="See what would go").click()
    await expect(page.get_by_text("Nothing would go now.")).to_be_visible()
    await page.get_by_role("button", name="Keep them 30 days").click()

    rules = page.get_by_role("group", name="Retention").get_by_role("row")
    await expect(rules.filter(has_text="Tea Poured")).to_contain_text("30 days")


async def test_what_is_expected_of_events_is_set_and_taken_back(
    mesh: RunningMesh, visiting: Visiting
) -> None:
    shop = await mesh.new_shop()
    visit = await visiting(shop.secret_key)
    visit.refused_with = 400
    page = visit.page
    await visit.go("rules")
    await page.get_by_label("Days that rejected events are kept").fill("90")
    await page.get_by_role("button", name="Save", exact=True).click()
    await expect(page.get_by_text("Saved.")).to_be_visible()
    await page.reload()
    await expect(page.get_by_label("Days that rejected events are kept")).to_have_value("90")

    await page.get_by_role("button", name="New plan").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Of events named").fill("Tea Poured")
    schema = dialog.get_by_label("JSON Schema of their properties")
    await schema.fill("{")
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("schema")
    await schema.fill('{"required": ["leaves"]}')
    await dialog.get_by_role("button", name="Block").click()
    await dialog.get_by_role("button", name="Save").click()
    plans = page.get_by_role("group", name="Tracking plans").get_by_role("row")
    await expect(plans.filter(has_text="Tea Poured")).to_contain_text("Block")

    await page.get_by_role("button", name="Delete Tea Poured").click()
    await expect(page.get_by_text("Nothing is expected of events yet")).to_be_visible()
    await page.get_by_role("button", name="Undo").click()
    await expect(plans.filter(has_text="Tea Poured")).to_be_visible()


async def test_orders_are_put_down_to_what_led_to_them(
    mesh: RunningMesh, visiting: Visiting
) -> None:
    shop = await mesh.new_shop()
    campaign = {"source": "newsletter", "medium": "email", "name": "tea"}
    came = {"type": "page", "userId": "ada", "context": {"campaign": campaign}}
    events = [came, _track("Product Added", "ada"), _order("o-1", 68.9)]
    for seconds, event in zip((90, 60, 30), events, strict=True):
        event["timestamp"] = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
    await send(mesh, shop, events)
    visit = await visiting(shop.secret_key)
    page = visit.page
    await visit.go("attribution")
    row = page.get_by_role("row").filter(has_text="newsletter / email / tea")
    await expect(row).to_contain_text("€68.90")

    await visit.go("carts")
    await expect(page.locator("[data-carts=ordered_count]")).to_have_text("1")


async def test_a_link_shows_another_the_same_view(visiting: Visiting, busy_shop: Shop) -> None:
    visit = await visiting(busy_shop.secret_key)
    page = visit.page
    await visit.go("")
    await page.get_by_label("Range").select_option("30d")
    await page.get_by_label("Comparison").select_option("year")
    await page.get_by_label("Time zone").select_option("Asia/Kolkata")
    await page.get_by_role("button", name=re.compile("^Orders")).click()
    link = page.url
    await visit.settle()
    shown = await page.locator("[data-metric=orders]").inner_text()

    other = await visiting(busy_shop.secret_key)
    await other.page.goto(link)

    await expect(other.page.locator("[data-metric=orders]")).to_have_text(shown)
    await expect(other.page.get_by_label("Time zone")).to_have_value("Asia/Kolkata")
    pressed = other.page.get_by_role("button", pressed=True)
    await expect(pressed).to_contain_text("Orders")


async def test_a_figure_is_clicked_to_filter_by_it(visiting: Visiting, busy_shop: Shop) -> None:
    visit = await visiting(busy_shop.secret_key)
    page = visit.page
    await visit.go("")
    await page.get_by_role("link", name="mobile").click()

    await expect(page.get_by_role("heading", name="Funnel")).to_be_visible()
    everybody = visit.page.get_by_text(re.compile("of .* people"))
    mobile = await everybody.inner_text()
    await page.get_by_role("button", name="device=mobile, remove").click()
    await expect(everybody).not_to_have_text(mobile)


async def test_what_is_on_the_screen_is_saved_as_csv(visiting: Visiting, busy_shop: Shop) -> None:
    visit = await visiting(busy_shop.secret_key)
    page = visit.page
    await visit.go("products")

    async with page.expect_download() as downloading:
        await page.get_by_role("button", name="CSV").click()
    download = await downloading.value
    text = (await download.path()).read_text()

    assert download.suggested_filename == "products.csv"
    head, *rows = csv.reader(io.StringIO(text))
    assert head[:3] == ["Product", "Views", "To cart"]
    shown = page.locator("tbody tr")
    assert len(rows) == await shown.count()
    assert rows[0][0] in await shown.first.inner_text()


async def test_all_can_be_reached_by_keyboard(visiting: Visiting, busy_shop: Shop) -> None:
    visit = await visiting(busy_shop.secret_key)
    page = visit.page
    await visit.go("")

    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    await page.keyboard.press("g")
    await page.keyboard.press("p")
    await expect(page.get_by_role("heading", name="Products", level=1)).to_be_focused()
    await page.keyboard.press("Control+k")
    await page.keyboard.type("dark")
    await page.keyboard.press("Enter")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await page.keyboard.press("Control+k")
    await page.keyboard.type("reten")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Retention", level=1)).to_be_visible()
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_a_key_sees_what_its_scopes_allow(mesh: RunningMesh, visiting: Visiting) -> None:
    shop = await mesh.new_shop()
    async with mesh.client(shop.secret_key) as http:
        order = {"kind": "SECRET", "scopes": ["reports:read"], "display_name": "Reports only"}
        made = await http.post(f"/v1/stores/{shop.store_uid}/keys", json=order)
    visit = await visiting(made.json()["text"])
    page = visit.page
    await visit.go("")

    links = page.get_by_role("navigation", name="Pages").get_by_role("link")
    assert [name.strip() for name in await links.all_inner_texts()] == [
        "Overview", "Funnel", "Products", "Acquisition", "Attribution", "Carts", "Retention",
        "Searches", "Catalogue", "Delivery", "Reconcile",
    ]  # fmt: skip
    await visit.go("keys")
    await expect(page.get_by_text("Your key doesn't open this page")).to_be_visible()


async def test_signing_out_everywhere_shows_the_door_in_other_browsers(
    mesh: RunningMesh, visiting: Visiting
) -> None:
    shop = await mesh.new_shop()
    here, there = await visiting(shop.secret_key), await visiting(shop.secret_key)
    await there.go("live")
    there.refused_with = 401
    await here.page.keyboard.press("Control+k")
    await here.page.keyboard.type("everywhere")
    await here.page.keyboard.press("Enter")
    await expect(here.page.get_by_label("Secret key")).to_be_visible()

    await asyncio.sleep(1)  # As long as news may take to a gateway.
    await there.page.get_by_role("link", name="Overview").click()

    await expect(there.page.get_by_label("Secret key")).to_be_visible()


async def test_a_key_that_does_not_work_opens_no_door(visiting: Visiting, new_shop: Shop) -> None:
    visit = await visiting(new_shop.secret_key)
    visit.refused_with = 401
    page = visit.page
    await page.get_by_role("button", name="Sign out").click()
    await page.get_by_label("Secret key").fill(new_shop.secret_key[:-1])
    await page.get_by_role("button", name="Sign in").click()

    await expect(page.get_by_role("alert")).to_contain_text("This key doesn't work")
    await expect(page.get_by_label("Secret key")).to_be_focused()


async def test_an_operator_chooses_a_store_and_runs_a_job(
    visiting: Visiting, busy_shop: Shop, operator_key: str
) -> None:
    visit = await visiting(operator_key)
    page = visit.page
    await visit.go("")
    await page.get_by_label("Store").select_option(busy_shop.store_uid)
    await expect(page.locator("[data-metric=visitors]")).to_be_visible()

    await page.get_by_role("link", name="Jobs").click()
    await page.get_by_role("button", name="Run purge-deleted of keys").click()
    await expect(page.get_by_role("status").filter(has_text="purge-deleted:")).to_be_visible()
    await page.get_by_role("button", name="Runs of purge-deleted of keys").click()
    runs = page.get_by_role("group", name="Runs of purge-deleted").get_by_role("row")
    await expect(runs.nth(1)).to_contain_text("succeeded")


def _track(name: str, user: str) -> dict[str, Any]:
    return {"type": "track", "event": name, "userId": user}


def _order(order_id: str, total: float) -> dict[str, Any]:
    properties = {"order_id": order_id, "total": total, "currency": "EUR"}
    return _track("Order Completed", "ada") | {"properties": properties}


async def _sends(mesh: RunningMesh, key: str) -> int:
    async with mesh.client(key) as http:
        return (await http.post("/v1/track", json=_track("Viewed", "ada"))).status_code
