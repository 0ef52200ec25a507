"""The pieces for shop platforms, run with what those platforms give them, against the gateway."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext

from services.ingest.catalogue import ENTRIES, schema_of
from services.ingest.plans import Schema
from tests.gateway.conftest import WRITE_KEY, Mesh, Running
from tests.storefront.conftest import Shop, events_when, names

PLATFORMS = Path(__file__).parents[2] / "docs" / "platforms"

VARIANT = {
    "id": "v1",
    "sku": "POT-1",
    "title": "Brown",
    "price": {"amount": 48.0, "currencyCode": "EUR"},
    "product": {"id": "p1", "title": "Pot", "vendor": "Kyusu", "type": "Pots"},
}
PRODUCT = {
    "product_id": "p1",
    "sku": "POT-1",
    "name": "Pot",
    "variant": "Brown",
    "brand": "Kyusu",
    "category": "Pots",
    "price": 48,
    "currency": "EUR",
}
LINE = {"merchandise": VARIANT, "quantity": 2}
CHECKOUT = {
    "token": "c1",
    "order": {"id": "o1"},
    "currencyCode": "EUR",
    "subtotalPrice": {"amount": 96.0, "currencyCode": "EUR"},
    "totalPrice": {"amount": 100.9, "currencyCode": "EUR"},
    "totalTax": {"amount": 16.11, "currencyCode": "EUR"},
    "shippingLine": {"price": {"amount": 4.9}},
    "lineItems": [{"title": "Pot", "quantity": 2, "variant": VARIANT}],
}
ORDER = {
    "checkout_id": "c1",
    "order_id": "o1",
    "subtotal": 96,
    "total": 100.9,
    "tax": 16.11,
    "shipping": 4.9,
    "currency": "EUR",
    "products": [{**PRODUCT, "quantity": 2}],
}
# As https://shopify.dev/docs/api/web-pixels-api/standard-events has their data.
SHOPIFY: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("page_viewed", {}, "page", {}),
    (
        "search_submitted",
        {"searchResult": {"query": "pot", "productVariants": [VARIANT]}},
        "Products Searched",
        {"query": "pot"},
    ),
    (
        "collection_viewed",
        {"collection": {"id": "l1", "title": "Pots", "productVariants": [VARIANT]}},
        "Product List Viewed",
        {"list_id": "l1", "category": "Pots", "products": [PRODUCT]},
    ),
    ("product_viewed", {"productVariant": VARIANT}, "Product Viewed", PRODUCT),
    ("product_added_to_cart", {"cartLine": LINE}, "Product Added", {**PRODUCT, "quantity": 2}),
    (
        "product_removed_from_cart",
        {"cartLine": LINE},
        "Product Removed",
        {**PRODUCT, "quantity": 2},
    ),
    (
        "cart_viewed",
        {"cart": {"id": "k1", "lines": [LINE]}},
        "Cart Viewed",
        {"cart_id": "k1", "products": [{**PRODUCT, "quantity": 2}]},
    ),
    (
        "checkout_started",
        {"checkout": {**CHECKOUT, "order": None}},
        "Checkout Started",
        {name: value for name, value in ORDER.items() if name != "order_id"},
    ),
    (
        "payment_info_submitted",
        {"checkout": CHECKOUT},
        "Payment Info Entered",
        {"checkout_id": "c1", "step": "payment"},
    ),
    ("checkout_completed", {"checkout": CHECKOUT}, "Order Completed", ORDER),
]
SANDBOX = """
const kept = new Map();
const heard = {};
window.browser = { localStorage: {
  getItem: async (name) => kept.get(name) ?? null,
  setItem: async (name, text) => void kept.set(name, text),
}};
window.analytics = { subscribe: (name, hear) => { heard[name] = hear } };
window.happen = async (number, name, data) => heard[name]({
  id: `e${number}`, clientId: "client-1", timestamp: new Date().toISOString(), name, data,
  context: { document: { location, title: "Tea", referrer: "" }, navigator: { language: "de" } },
});
window.left = () => JSON.parse(kept.get("shoptrail_queue") ?? "[]");
"""


async def test_the_shopify_pixel_tells_of_every_standard_event(
    shop: Shop, mesh: Mesh, gateway: Running, visitor: BrowserContext
) -> None:
    pixel = (PLATFORMS / "shopify" / "custom-pixel.js").read_text()
    pixel = pixel.replace("pk_live_…", WRITE_KEY)
    pixel = pixel.replace("https://events.shop.example", f"http://127.0.0.1:{gateway.port}")
    # A pixel's own sandbox.
    shop.headers = [(b"content-security-policy", b"sandbox allow-scripts")]
    page = await visitor.new_page()
    await page.goto(shop.put("/", tag=f"<script>{SANDBOX}</script><script>{pixel}</script>"))
    for number, (name, data, *_) in enumerate(SHOPIFY):
        await page.evaluate("given => happen(...given)", [number, name, data])
    # Told twice, it counts once.
    await page.evaluate("given => happen(...given)", [0, "page_viewed", {}])
    events = await events_when(mesh, len(SHOPIFY))
    await page.wait_for_function("left().length === 0")

    assert [event.get("event", "page") for event in events] == [each[2] for each in SHOPIFY]
    assert [event["properties"] for event in events] == [each[3] for each in SHOPIFY]
    assert {event["anonymousId"] for event in events} == {"client-1"}
    schemas = {entry.name: Schema(schema_of(entry)) for entry in ENTRIES}
    for event in events[1:]:
        properties = json.dumps(event["properties"]).encode()
        assert not schemas[event["event"]].find_violations(properties)


async def test_the_shopify_pixel_keeps_what_the_gateway_did_not_have(
    shop: Shop, mesh: Mesh, gateway: Running, visitor: BrowserContext
) -> None:
    pixel = (PLATFORMS / "shopify" / "custom-pixel.js").read_text()
    pixel = pixel.replace("https://events.shop.example", f"http://127.0.0.1:{gateway.port}")
    pixel = pixel.replace("pk_live_…", WRITE_KEY)
    page = await visitor.new_page()
    await page.clock.install()
    await page.goto(shop.put("/", tag=f"<script>{SANDBOX}</script><script>{pixel}</script>"))
    await visitor.set_offline(True)
    await page.evaluate("happen(1, 'page_viewed', {})")
    assert await page.evaluate("left().length") == 1
    await visitor.set_offline(False)
    await page.clock.fast_forward(6000)
    await page.evaluate("happen(2, 'page_viewed', {})")

    assert len(await events_when(mesh, 2)) == 2
    await page.wait_for_function("left().length === 0")


# What Tag Manager gives to templates, done in the page itself.
TAG_MANAGER = """
const modules = {
  injectScript: (url, done, failed) => {
    const script = document.createElement("script");
    Object.assign(script, { src: url, async: true, onload: done, onerror: failed });
    document.head.append(script);
  },
  callInWindow: (path, ...given) => {
    const [object, name] = path.split(".");
    return window[object][name](...given);
  },
  encodeUriComponent: encodeURIComponent,
  isConsentGranted: () => window.granted,
  addConsentListener: (type, hear) => { window.decide = (granted) => hear(type, granted) },
  makeTableMap: (rows, name, value) =>
    Object.fromEntries(rows.map((row) => [row[name], row[value]])),
};
window.fire = (code, data) => new Promise((resolve, reject) => {
  const template = new Function("require", "data", code);
  template((name) => modules[name], { ...data, gtmOnSuccess: resolve, gtmOnFailure: reject });
});
"""


async def test_the_tag_manager_template_waits_for_consent_and_hears_the_data_layer(
    shop: Shop, mesh: Mesh, gateway: Running, visitor: BrowserContext
) -> None:
    template = (PLATFORMS / "google-tag-manager" / "template.tpl").read_text()
    sections = dict(
        re.findall(r"___([A-Z_]+)___\n\n(.*?)(?=\n___[A-Z_]+___|\Z)", template, re.DOTALL)
    )
    code = sections["SANDBOXED_JS_FOR_WEB_TEMPLATE"]
    json.loads(sections["INFO"])
    fields = {field["name"] for field in json.loads(sections["TEMPLATE_PARAMETERS"])}
    assert set(re.findall(r"data\.(\w+)", code)) - {"gtmOnSuccess", "gtmOnFailure"} == fields
    granted = json.dumps(json.loads(sections["WEB_PERMISSIONS"]))
    assert {"inject_script", "access_globals", "access_consent"} == set(
        re.findall(r'"publicId": "(\w+)"', granted)
    )

    page = await visitor.new_page()
    await page.goto(shop.put("/", tag=f"<script>{TAG_MANAGER}</script>"))
    data = {
        "gateway": f"http://127.0.0.1:{gateway.port}",
        "key": WRITE_KEY,
        "consent": "required",
        "dataLayer": True,
        "event": "Cart Viewed",
        "properties": [{"name": "cart_id", "value": "c1"}],
    }
    await page.evaluate("([code, data]) => fire(code, data)", [code, data])
    await page.evaluate("dataLayer.push({event: 'search', search_term: 'oolong'})")
    await page.wait_for_timeout(300)
    assert mesh.appended == []
    await page.evaluate("decide(true)")

    events = await events_when(mesh, 3)
    assert names(events) == ["page", "Cart Viewed", "Products Searched"]
    assert events[1]["properties"] == {"cart_id": "c1"}
