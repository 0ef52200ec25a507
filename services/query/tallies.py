"""What is counted by quarter of an hour and key, without more ado."""

from __future__ import annotations

from collections.abc import Iterator
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
_OF_PRODUCTS = {
    "Product Viewed": Measure.PRODUCT_VIEWS,
    "Viewed Product": Measure.PRODUCT_VIEWS,
    "Product Added": Measure.PRODUCT_ADDITIONS,
    "Added Product": Measure.PRODUCT_ADDITIONS,
    "Product Removed": Measure.PRODUCT_REMOVALS,
    "Removed Product": Measure.PRODUCT_REMOVALS,
    "Product Clicked": Measure.PRODUCT_CLICKS,
    "Clicked Product": Measure.PRODUCT_CLICKS,
}
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


def tallies_of_page(fact: Fact) -> Iterator[tuple[Measure, str]]:
    """What the view of a page counts for, and under which key."""
    if fact.page:
        yield Measure.PAGE_VIEWS_BY_PATH, fact.page
    if fact.campaign:
        yield Measure.PAGE_VIEWS_BY_CAMPAIGN, fact.campaign
    if fact.referrer:
        yield Measure.PAGE_VIEWS_BY_REFERRER, fact.referrer
    if fact.device:
        yield Measure.PAGE_VIEWS_BY_DEVICE, fact.device
    if fact.country:
        yield Measure.PAGE_VIEWS_BY_COUNTRY, fact.country


def tallies_of_action(name: str, payload: Payload) -> Iterator[tuple[Measure, str]]:
    """What a `track` event counts for, and under which key."""
    properties = payload.properties
    if name in _OF_PRODUCTS:
        # Some senders put the product into an object of its own.
        key = product_id_of(properties) or product_id_of(part_in(properties, "product"))
        found = [(_OF_PRODUCTS[name], key)]
    elif name in _SEARCHES:
        term = " ".join(text_in(properties, "query").lower().split())
        found = [(Measure.SEARCHES, term)]
        if _found_nothing(payload):
            found.append((Measure.SEARCHES_WITHOUT_RESULT, term))
    elif name in _OF_PROMOTIONS:
        key = text_in(properties, "promotion_id") or text_in(properties, "name")
        found = [(_OF_PROMOTIONS[name], key)]
    elif name in _OF_COUPONS:
        key = text_in(properties, "coupon_id") or text_in(properties, "coupon")
        found = [(_OF_COUPONS[name], key)]
    else:
        return
    yield from (tally for tally in found if tally[1])


def named_product(name: str, payload: Payload) -> tuple[str, str] | None:
    """The id of the product that a `track` event is about, and what it calls it."""
    if name not in _OF_PRODUCTS:
        return None
    for product in (payload.properties, part_in(payload.properties, "product")):
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
