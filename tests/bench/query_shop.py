"""Events of some stores, without end: what the measurements of Query follow."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from common.uid import new_uid
from shoptrail.ingest.v1.event_pb2 import Event, EventType

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
PACE = timedelta(days=90) / 5_000_000
"""From one event to the next, of all stores together."""

NAMES = [("Product Viewed", 60), ("Product Added", 12), ("Order Completed", 3), ("", 25)]
# The same in each process, so that a log can be gone on with.
STORES = [f"sto_01jgfq8z00{number:016}" for number in range(20)]
PRODUCTS = 500
CHUNK_EVENTS = 10_000
"""Events can be made anew from each multiple of this on."""

_EVENTS_A_VISIT = 8
_PAUSE = timedelta(seconds=25)
# As Ingest writes it of a browser.
_ENRICHMENT = b'{"browser":{"name":"Chrome","version":"126"},"device":{"type":"mobile"}}'


def shop_events(*, seed: int, first: int = 0, pace: timedelta = PACE) -> Iterator[Event]:
    """What visitors do in a few stores, a quarter of all in one, nearly in the order it happened.

    They come in visits of eight events on average, 25 seconds apart, and come back within days.
    As many visits are under way at once as that takes, so neighbours in the log are strangers.
    `first` is how many events there are already, a multiple of `CHUNK_EVENTS`.
    """
    kinds = [name for name, weight in NAMES for _ in range(weight)]
    number = first
    while True:
        chance = random.Random(f"{seed} {number}")  # noqa: S311 - nothing secret
        under_way = [_Visit(chance, number) for _ in range(max(round(_PAUSE / pace), 1))]
        for _ in range(CHUNK_EVENTS):
            place = chance.randrange(len(under_way))
            yield _event(chance, number, chance.choice(kinds), under_way[place], pace)
            if chance.random() < 1 / _EVENTS_A_VISIT:
                under_way[place] = _Visit(chance, number)
            number += 1


def end_of(count: int) -> datetime:
    """When the last of so many events happened."""
    return BEGIN + PACE * count


class _Visit:
    """Somebody who looks around in a store."""

    def __init__(self, chance: random.Random, number: int) -> None:
        self.store_uid = STORES[0] if chance.random() < 0.25 else chance.choice(STORES)
        # Of those that are about at the time, each comes a few times.
        self.anonymous_id = f"b{number // 20 + chance.randrange(5000)}"
        self.campaign = f"c{chance.randrange(9)}" if chance.random() < 0.1 else ""


def _event(chance: random.Random, number: int, name: str, visit: _Visit, pace: timedelta) -> Event:
    # A few products are what most look at.
    product = f"p{min(int(chance.paretovariate(0.8)), PRODUCTS)}"
    moment = BEGIN + pace * number - timedelta(seconds=chance.expovariate(1))
    seconds, micros = divmod(round(moment.timestamp() * 1_000_000), 1_000_000)
    return Event(
        uid=new_uid("evt"),
        store_uid=visit.store_uid,
        message_id=f"m{number}",
        type=EventType.EVENT_TYPE_TRACK if name else EventType.EVENT_TYPE_PAGE,
        name=name,
        anonymous_id=visit.anonymous_id,
        payload=_payload(name, product, number, visit.campaign),
        position=number + 1,
        occur_time=Timestamp(seconds=seconds, nanos=micros * 1000),
        receive_time=Timestamp(seconds=seconds + 1, nanos=micros * 1000),
        enrichment=_ENRICHMENT,
    )


def _payload(name: str, product: str, number: int, campaign: str) -> bytes:
    words: dict[str, Any] = {
        "context": {
            "page": {"path": f"/{product}", "url": f"https://shop.example/{product}"},
            "userAgent": "Mozilla/5.0 (X11; Linux x86_64) Mobile",
        },
        "properties": {"product_id": product, "name": product, "price": 9.5},
    }
    if campaign:
        words["context"]["campaign"] = {"source": "news", "name": campaign}
    if name == "Order Completed":
        words["properties"] = {
            "order_id": f"o{number}",
            "total": 19,
            "currency": "EUR",
            "products": [{"product_id": product, "price": 9.5, "quantity": 2}],
        }
    return msgspec.json.encode(words)
