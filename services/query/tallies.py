"""What is counted by quarter of an hour and key, without more ado."""

from __future__ import annotations

from enum import IntEnum

from services.query.orders import product_id_of
from services.query.payload import (
    Payload,
    list_in,
    number_in,
    part_in,
    text_in,
)
from services.query.projection import Fact

EVENT_TYPES = range(1, 16)
"""The measures that count events by name: the numbers of Ingest's `EventType`, and some to come."""


class Measure(IntEnum):
    """What is counted besides events. The numbers stand in the database."""

    PAGE_VIEWS_BY_PATH = 101
    PAGE_VIEWS_BY_CAMPAIGN = 102
    PAGE_VIEWS_BY_REFERRER = 103
    PAGE_VIEWS_BY_DEVICE = 104
    PAGE_VIEWS_BY_COUNTRY = 105
    PRODUCT_VIEWS = 111
    PRODUCT_ADDITIONS = 112
    PRODUCT_REMOVALS = 113
    PRODUCT_CLICKS = 114
    SEARCHES = 121
    SEARCHES_WITHOUT_RESULT = 122
    PROMOTION_VIEWS = 131
    PROMOTION_CLICKS = 132
    COUPONS_ENTERED = 141
    COUPONS_APPLIED = 142
    COUPONS_DENIED = 143
    COUPONS_REMOVED = 144


# With the names that the first version of the specification gave them.
OF_PRODUCTS = {
    "Product Viewed": Measure.PRODUCT_VIEWS,
    "Viewed Product": Measure.PRODUCT_VIEWS,
    "Product Added": Measure.PRODUCT_ADDITIONS,
    "Added Product": Measure.PRODUCT_ADDITIONS,
    "Product Removed": Measure.PRODUCT_REMOVALS,
    "Removed Product": Measure.PRODUCT_REMOVALS,
    "Product Clicked": Measure.PRODUCT_CLICKS,
    "Clicked Product": Measure.PRODUCT_CLICKS,
}
"""The `track` events that are about one product, and what of it they count."""
_OF_PROMOTIONS = {
    "Promotion Viewed": Measure.PROMOTION_VIEWS,
    "Viewed Promotion": Measure.PROMOTION_VIEWS,
    "Promotion Clicked": Measure.PROMOTION_CLICKS,
    "Clicked Promotion": Measure.PROMOTION_CLICKS,
}
_OF_COUPONS = {
    "Coupon Entered": Measure.COUPONS_ENTERED,
    "Coupon Applied": Measure.COUPONS_APPLIED,
    "Coupon Denied": Measure.COUPONS_DENIED,
    "Coupon Removed": Measure.COUPONS_REMOVED,
}
_SEARCHES = ("Products Searched", "Searched Products")
_RESULT_COUNTS = ("results_count", "result_count", "results", "number_of_results")


def tallies_of_page(fact: Fact) -> list[tuple[int, str]]:
    """What the view of a page counts for, and under which key."""
    # A list by hand: there is one for each page, and a generator takes twice as long.
    found: list[tuple[int, str]] = []
    if fact.page:
        found.append((Measure.PAGE_VIEWS_BY_PATH, fact.page))
    if fact.campaign:
        found.append((Measure.PAGE_VIEWS_BY_CAMPAIGN, fact.campaign))
    if fact.referrer:
        found.append((Measure.PAGE_VIEWS_BY_REFERRER, fact.referrer))
    if fact.device:
        found.append((Measure.PAGE_VIEWS_BY_DEVICE, fact.device))
    if fact.country:
        found.append((Measure.PAGE_VIEWS_BY_COUNTRY, fact.country))
    return found


def tallies_of_action(name: str, payload: Payload) -> list[tuple[int, str]]:
    """What a `track` event counts for, and under which key."""
    if product := named_product(name, payload):
        return [(OF_PRODUCTS[name], product[0])]
    properties = payload.properties
    found: list[tuple[int, str]] = []
    if name in _SEARCHES:
        term = " ".join(text_in(properties, "query").lower().split())
        found.append((Measure.SEARCHES, term))
        if _found_nothing(payload):
            found.append((Measure.SEARCHES_WITHOUT_RESULT, term))
    elif name in _OF_PROMOTIONS:
        key = text_in(properties, "promotion_id") or text_in(properties, "name")
        found.append((_OF_PROMOTIONS[name], key))
    elif name in _OF_COUPONS:
        key = text_in(properties, "coupon_id") or text_in(properties, "coupon")
        found.append((_OF_COUPONS[name], key))
    return [tally for tally in found if tally[1]]


def named_product(name: str, payload: Payload) -> tuple[str, str] | None:
    """The id of the product that a `track` event is about, and what it calls it."""
    if name not in OF_PRODUCTS:
        return None
    properties = payload.properties
    if product_id := product_id_of(properties):
        return product_id, text_in(properties, "name")
    # Some senders put the product into an object of its own.
    product = part_in(properties, "product")
    if product_id := product_id_of(product):
        return product_id, text_in(product, "name")
    return None


def _found_nothing(payload: Payload) -> bool:
    """Whether a search says that it had no result; if it says nothing, it had."""
    for key in _RESULT_COUNTS:
        count = number_in(payload.properties, key)
        if count is not None:
            return count == 0
    return list_in(payload.properties, "products") == []
