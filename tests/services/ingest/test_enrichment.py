"""What Ingest finds out about an event, and what of an address it keeps."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from services.ingest.addresses import AddressStorage, reduce_address, reduce_addresses
from services.ingest.money import MoneyNotValid, read_money
from services.ingest.rules import StoreRules
from services.ingest.verdicts import Arrival, Reading, read_event

RECEIVED = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/17.1 Mobile/15E148 Safari/604.1"
)
WINDOWS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 "
    "(KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
)
TABLET = (
    "Mozilla/5.0 (Linux; Android 13; SM-X906C) AppleWebKit/537.36 "
    "(KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"
)
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"

OFF, TRUNCATED, FULL = AddressStorage


def read(
    context: Any = None, *, storage: AddressStorage = TRUNCATED, **arrival: Any
) -> tuple[Reading, Any]:
    event = {"type": "page", "userId": "ada"} | ({} if context is None else {"context": context})
    reading = read_event(
        json.dumps(event).encode(),
        Arrival(RECEIVED, **arrival),
        limit_bytes=32 * 1024,
        rules=StoreRules(address_storage=storage),
    )
    return reading, json.loads(reading.enrichment)


@pytest.mark.parametrize(
    ("user_agent", "browser", "system", "device"),
    [
        (IPHONE, "Mobile Safari", "iOS", {"type": "mobile", "brand": "Apple", "model": "iPhone"}),
        (WINDOWS, "Chrome", "Windows", {"type": "desktop"}),
        (TABLET, "Chrome", "Android", {"type": "tablet", "brand": "Samsung", "model": "SM-X906C"}),
    ],
)
def test_the_user_agent_tells_browser_system_and_device(
    user_agent: str, browser: str, system: str, device: dict[str, str]
) -> None:
    _, found = read({"userAgent": user_agent})

    assert (found["browser"]["name"], found["os"]["name"]) == (browser, system)
    assert found["browser"]["version"][0].isdigit()
    assert found["device"] == device
    assert "bot" not in found


def test_robots_are_flagged_and_their_events_kept() -> None:
    assert read({"userAgent": GOOGLEBOT})[1]["bot"] is True
    assert read({"userAgent": WINDOWS.replace("Chrome", "HeadlessChrome")})[1]["bot"] is True


def test_what_a_server_sends_says_nothing_of_the_visitors_browser_or_address() -> None:
    sent_by_server: dict[str, Any] = {
        "client_ip": "203.0.113.7",
        "user_agent": "analytics-python/2.4.0",
    }
    sent_by_browser: dict[str, Any] = {"client_ip": "203.0.113.7", "user_agent": IPHONE}

    assert read(**sent_by_server)[1] == {}
    assert read({"direct": True}, **sent_by_server)[1]["ip"] == "203.0.113.0"
    assert read({"userAgent": WINDOWS}, **sent_by_server)[1]["browser"]["name"] == "Chrome"
    assert read(**sent_by_browser)[1]["ip"] == "203.0.113.0"
    assert read(**sent_by_browser)[1]["os"]["name"] == "iOS"


def test_only_the_shop_itself_is_believed_whose_address_it_was() -> None:
    claim = read({"ip": "198.51.100.9"}, client_ip="203.0.113.7", user_agent=IPHONE)[1]
    word = read({"ip": "198.51.100.9"}, client_ip="203.0.113.7", confirmed=True)[1]

    assert (claim["ip"], claim["flags"]) == ("203.0.113.0", ["ip_not_believed"])
    assert (word["ip"], "flags" in word) == ("198.51.100.0", False)


def test_what_the_shop_itself_vouches_for_is_told_from_what_anybody_claims() -> None:
    assert read(confirmed=True)[1] == {"confirmed": True}
    assert read({"confirmed": True}, confirmed=False)[1] == {}


@pytest.mark.parametrize(
    ("address", "truncated", "full"),
    [
        ("203.0.113.77", "203.0.113.0", "203.0.113.77"),
        ("2001:db8:1:2:3::4", "2001:db8:1::", "2001:db8:1:2:3::4"),
        ("::ffff:203.0.113.77", "203.0.113.0", "203.0.113.77"),
        ("fe80::1%eth0", "fe80::", "fe80::1"),
        ("203.0.113.77:443", "", ""),
        ("somewhere", "", ""),
        ("1" * 10_000, "", ""),
    ],
)
def test_of_an_address_no_more_is_kept_than_the_store_allows(
    address: str, truncated: str, full: str
) -> None:
    assert reduce_address(address, TRUNCATED) == truncated
    assert reduce_address(address, FULL) == full
    assert reduce_address(address, OFF) == ""


def test_an_address_in_the_event_itself_is_reduced_and_nothing_else_changed() -> None:
    context = {"ip": "203.0.113.77", "n": 1.50}

    assert b'"ip": "203.0.113.0", "n": 1.5' in read(context)[0].payload
    assert b'"ip": "", "n": 1.5' in read(context, storage=OFF)[0].payload
    assert b'"ip": "203.0.113.77"' in read(context, storage=FULL)[0].payload
    assert reduce_addresses(b'{"ip" :"10.1.2.3', TRUNCATED) == b'{"ip" :"10.1.2.3'
    assert reduce_addresses(b'}"ip" :"10.1.2.3"{', TRUNCATED) == b'}"ip" :"10.1.2.0"{'
    assert reduce_addresses(b'{"ip":"10.1.2.3, 10.4.5.6"}', TRUNCATED) == b'{"ip":""}'
    assert reduce_addresses(b'{"ip":"intellectual"}', OFF) == b'{"ip":"intellectual"}'


def test_campaign_and_referrer_come_from_the_page_unless_the_sdk_has_read_them() -> None:
    page = {
        "url": "https://shop.example/?utm_source=news&utm_medium=e%20mail&utm_campaign=fall&x=1#a",
        "referrer": "https://User@Search.Example:8443/find?q=tea",
    }

    _, by_page = read({"page": page})
    _, by_sdk = read({"page": page, "campaign": {"source": "ads", "name": None}})
    _, neither = read({"page": {"url": "https://shop.example/", "referrer": "$direct"}})

    assert by_page["campaign"] == {"source": "news", "medium": "e mail", "name": "fall"}
    assert by_page["referrer"] == {"url": page["referrer"], "host": "search.example"}
    assert by_sdk["campaign"] == {"source": "ads"}
    assert neither == {}


def test_consent_and_privacy_control_are_stored_with_the_event() -> None:
    consent = {"categoryPreferences": {"Advertising": False}}

    assert read({"consent": consent}, gpc=True)[1] == {"consent": consent, "gpc": True}
    assert read({"consent": None})[1] == {}


@pytest.mark.parametrize(
    "context", [[], "x", 7, {"page": "x"}, {"userAgent": 7}, {"campaign": {"source": {}}}]
)
def test_a_context_that_is_none_is_flagged_and_the_event_kept(context: Any) -> None:
    assert read(context)[1] == {"flags": ["context_not_valid"]}


def test_money_is_read_digit_by_digit() -> None:
    properties = b'{"total":9007199254740993.10,"tax":"0.10","shipping":1e2,"currency":"eur"}'

    with pytest.raises(MoneyNotValid):
        read_money(properties)
    assert read_money(properties.replace(b"9007199254740993", b"900719925474099")) == {
        "total": "900719925474099.10",
        "shipping": "100",
        "tax": "0.10",
        "currency": "EUR",
    }
    assert read_money(b'{"price":null,"other":1e999}') == {}


@pytest.mark.parametrize(
    "amount", [b'"a lot"', b"true", b"[]", b"1e999", b'"NaN"', b'"-Infinity"', b"0.0000001"]
)
def test_what_is_no_amount_is_flagged(amount: bytes) -> None:
    payload = b'{"type":"track","event":"Order Completed","userId":"a","properties":{"total":%b}}'

    reading = read_event(payload % amount, Arrival(RECEIVED), limit_bytes=1000)

    assert json.loads(reading.enrichment) == {"flags": ["money_not_valid"]}
    with pytest.raises(MoneyNotValid):
        read_money(b'{"total":1,"currency":"EURO"}')
