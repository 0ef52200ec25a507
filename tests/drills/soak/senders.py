"""Visitors who look around and buy, at a rate that holds, however long."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any

from tests.drills.faults.shoppers import Connection

SENDERS = 32
BATCH_EVENTS = 5

_EVENTS_A_VISIT = 8
_PRODUCTS = 500
_NAMES = ["Product Viewed"] * 60 + ["Product Added"] * 12 + ["Order Completed"] * 3 + [""] * 25
_PAUSE_SECONDS = 0.2


@dataclass(slots=True)
class Tally:
    """What came of the requests since it was taken last."""

    acked: int = 0
    """Events that were accepted."""
    refused: int = 0
    """Answers that were no acknowledgement: the request was sent again."""
    waits: list[float] = field(default_factory=list)
    """How long each acknowledgement took, in seconds."""


class Crowd:
    """Sends events from many connections, each request until it is acknowledged."""

    def __init__(self, *, port: int, write_key: str, seed: int) -> None:
        self._port = port
        self._write_key = write_key
        self._seed = seed
        self._tally = Tally()

    def take_tally(self) -> Tally:
        """What came of the requests since this was asked last."""
        tally, self._tally = self._tally, Tally()
        return tally

    async def send(self, seconds: float, *, rate: float | None) -> None:
        """Send so many events a second for so long, or as many as are taken."""
        pause = SENDERS * BATCH_EVENTS / rate if rate else 0.0
        began = time.monotonic()
        async with asyncio.TaskGroup() as senders:
            for number in range(SENDERS):
                first = began + pause * number / SENDERS
                senders.create_task(self._send(number, first, began + seconds, pause))

    async def _send(self, number: int, first: float, end: float, pause: float) -> None:
        connection = Connection(self._port, self._write_key)
        visitor = _Visitor(random.Random(f"{self._seed} {number} {first}"))  # noqa: S311 - no secret
        due = first
        try:
            while (now := time.monotonic()) < end:
                if due > now:
                    await asyncio.sleep(due - now)
                # Who falls behind catches up: the rate is what is asked, not what is answered.
                due += pause
                await self._deliver(connection, visitor.next_batch())
        finally:
            connection.close()

    async def _deliver(self, connection: Connection, body: bytes) -> None:
        while True:
            asked = time.monotonic()
            status, headers, content = await connection.post("/v1/batch", body)
            if status == 200:
                self._tally.waits.append(time.monotonic() - asked)
                self._tally.acked += BATCH_EVENTS
                assert json.loads(content)["accepted"] == BATCH_EVENTS, content
                return
            self._tally.refused += 1
            await asyncio.sleep(max(_PAUSE_SECONDS, float(headers.get("retry-after", "0"))))


class _Visitor:
    """One after the other, as each leaves."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._anonymous_id = ""

    def next_batch(self) -> bytes:
        return json.dumps({"batch": [self._next_event() for _ in range(BATCH_EVENTS)]}).encode()

    def _next_event(self) -> dict[str, Any]:
        chance = self._chance
        if not self._anonymous_id or chance.random() < 1 / _EVENTS_A_VISIT:
            self._anonymous_id = f"{chance.getrandbits(64):x}"
        product = f"p{min(int(chance.paretovariate(0.8)), _PRODUCTS)}"
        event: dict[str, Any] = {
            "anonymousId": self._anonymous_id,
            "messageId": f"{chance.getrandbits(96):x}",
            "context": {
                "page": {"path": f"/{product}", "url": f"https://shop.example/{product}"},
                "userAgent": "Mozilla/5.0 (Linux; Android 14) Mobile",
            },
        }
        name = chance.choice(_NAMES)
        if not name:
            return event | {"type": "page", "name": product}
        properties: dict[str, Any] = {"product_id": product, "name": product, "price": 9.5}
        if name == "Order Completed":
            properties = {
                "order_id": f"{chance.getrandbits(64):x}",
                "total": 19,
                "currency": "EUR",
                "products": [{"product_id": product, "price": 9.5, "quantity": 2}],
            }
        return event | {"type": "track", "event": name, "properties": properties}
