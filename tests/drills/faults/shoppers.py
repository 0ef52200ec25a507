"""Clients that send events over HTTP until each is acknowledged, and a record of what they saw."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

_ANSWER_SECONDS = 8.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 0.5
# How long a shopper goes on trying once the drill is over.
_LAST_TRIES_SECONDS = 30.0


def percentile(waits: Sequence[float], share: float) -> float:
    """The time in which this share of the waits was over; 0 if there are none."""
    ordered = sorted(waits)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


@dataclass(slots=True)
class History:
    """What was sent, and what was said of it."""

    sent: set[str] = field(default_factory=set)
    acked: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Message ids that were accepted, or said to be known: which shopper's, and its number."""
    rejected: set[str] = field(default_factory=set)
    request_count: int = 0
    retry_count: int = 0
    waits: list[float] = field(default_factory=list)
    """How long each answer took that acknowledged, in seconds; of its last try only."""
    longest_wait: float = 0.0
    """From an event's first try until it was acknowledged."""
    statuses: dict[int, int] = field(default_factory=dict)
    """How many answers had each status; 0 is none at all."""
    lacking_retry_after: int = 0
    """Refusals that didn't say when to come again."""

    def percentile(self, share: float) -> float:
        """The time in which this share of the acknowledging answers came."""
        return percentile(self.waits, share)


class Connection:
    """One connection to the gateway, opened again when it breaks."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        token = base64.b64encode(f"{key}:".encode()).decode()
        self._head = (
            f"Host: 127.0.0.1\r\nAuthorization: Basic {token}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer; 0 if there was none."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await self._post(path, body)
        except (OSError, EOFError, ValueError):
            self.close()
            return 0, {}, b""

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _post(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(f"POST {path} HTTP/1.1\r\n{self._head}{len(body)}\r\n\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:])
        }
        content = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection") == "close":
            self.close()
        return int(head[0].split()[1]), headers, content


class Shopper:
    """Sends batches one after the other, each until it is acknowledged."""

    def __init__(
        self, number: int, *, port: int, key: str, history: History, seed: int, batch_size: int
    ) -> None:
        self._number = number
        self._connection = Connection(port, key)
        self._history = history
        self._chance = random.Random(f"{seed}-{number}")  # noqa: S311 - no secret
        self._batch_size = batch_size
        self._count = 0

    async def shop(self, over: asyncio.Event, *, pause_seconds: float, retry: bool) -> None:
        """Send until it is over. What isn't acknowledged is then tried a little longer."""
        try:
            while not over.is_set():
                await self._send(over, retry=retry)
                await asyncio.sleep(self._chance.uniform(0, 2 * pause_seconds))
        finally:
            self._connection.close()

    async def _send(self, over: asyncio.Event, *, retry: bool) -> None:
        history = self._history
        ids, body = self._fill_cart()
        history.sent.update(ids)
        began = time.monotonic()
        pause = _FIRST_PAUSE_SECONDS
        while True:
            asked = time.monotonic()
            status, headers, content = await self._connection.post("/v1/batch", body)
            history.request_count += 1
            history.statuses[status] = history.statuses.get(status, 0) + 1
            if status == 200:
                history.waits.append(time.monotonic() - asked)
                history.longest_wait = max(history.longest_wait, time.monotonic() - began)
                self._note(ids, json.loads(content))
                return
            if status in (429, 503) and "retry-after" not in headers:
                history.lacking_retry_after += 1
            if not retry:
                return
            if over.is_set() and time.monotonic() - began > _LAST_TRIES_SECONDS:
                return
            history.retry_count += 1
            # As SDKs do: when they were told, or else ever later, and not all at once.
            told = float(headers.get("retry-after", "0"))
            await asyncio.sleep(self._chance.uniform(0.5, 1) * max(pause, told))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _fill_cart(self) -> tuple[list[str], bytes]:
        ids = []
        events = []
        for _ in range(self._batch_size):
            self._count += 1
            message_id = f"{self._number}-{self._count}"
            ids.append(message_id)
            event: dict[str, object] = {
                "type": "track",
                "event": self._chance.choice(("Product Viewed", "Cart Viewed", "Order Completed")),
                "userId": f"u{self._number}",
                "messageId": message_id,
                "properties": {"order_id": message_id, "total": 1.5, "currency": "EUR"},
            }
            if self._chance.random() < 0.02:
                del event["event"]
            events.append(event)
        return ids, json.dumps({"batch": events}).encode()

    def _note(self, ids: Sequence[str], answer: dict[str, object]) -> None:
        history = self._history
        results = answer["results"]
        assert isinstance(results, list)
        faults = {result["index"] for result in results if result["verdict"] == "rejected"}
        assert all(result["verdict"] in ("rejected", "duplicate") for result in results), answer
        first = self._count - len(ids) + 1
        for index, message_id in enumerate(ids):
            if index in faults:
                history.rejected.add(message_id)
            else:
                history.acked[message_id] = (self._number, first + index)
