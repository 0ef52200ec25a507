"""Tells Shoptrail from a shop's own server which orders were placed, refunded and cancelled.

Copy this file into the shop: it needs nothing but Python 3.11. What is told with a secret key
counts as confirmed. Everything may be told again: it counts once.

    orders = Orders("https://events.shop.example", secret_key)
    orders.completed("o-1", total=Decimal("39.80"), currency="EUR", anonymous_id=cookie)
    orders.refunded("o-1", "r-1", total=Decimal("19.90"), currency="EUR")
"""

from __future__ import annotations

import base64
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

Amount = Decimal | int | str
"""Exact: no floats."""


class NotStored(Exception):
    """Shoptrail has not stored the event; the text says why."""


class Orders:
    """Tells of the orders of one store."""

    def __init__(self, url: str, secret_key: str, *, patience_seconds: float = 30.0) -> None:
        """For `patience_seconds` an event is tried again if the gateway can't be reached."""
        self._url = f"{url.rstrip('/')}/v1/track"
        self._authorization = "Basic " + base64.b64encode(f"{secret_key}:".encode()).decode()
        self._patience_seconds = patience_seconds

    def completed(
        self,
        order_id: str,
        *,
        total: Amount,
        currency: str,
        products: Iterable[Mapping[str, Any]] = (),
        user_id: str | None = None,
        anonymous_id: str | None = None,
        time: datetime | None = None,
        **more: Any,
    ) -> None:
        """An order was placed. Raises `NotStored`.

        `anonymous_id` is the cookie `shoptrail_id`, by which the order belongs to the visit.
        """
        facts = {"total": _exact(total), "currency": currency, "products": list(products), **more}
        who = (user_id, anonymous_id)
        self._tell("Order Completed", order_id, "order-completed", facts, who, time)

    def refunded(
        self,
        order_id: str,
        refund_id: str,
        *,
        total: Amount,
        currency: str,
        user_id: str | None = None,
        anonymous_id: str | None = None,
        time: datetime | None = None,
        **more: Any,
    ) -> None:
        """So much of an order was paid back; each refund has its own id. Raises `NotStored`."""
        facts = {"refund_id": refund_id, "total": _exact(total), "currency": currency, **more}
        who = (user_id, anonymous_id)
        self._tell("Order Refunded", order_id, f"order-refunded-{refund_id}", facts, who, time)

    def cancelled(
        self,
        order_id: str,
        *,
        user_id: str | None = None,
        anonymous_id: str | None = None,
        time: datetime | None = None,
        **more: Any,
    ) -> None:
        """An order was cancelled. Raises `NotStored`."""
        who = (user_id, anonymous_id)
        self._tell("Order Cancelled", order_id, "order-cancelled", more, who, time)

    def _tell(
        self,
        event: str,
        order_id: str,
        kind: str,
        facts: Mapping[str, Any],
        who: tuple[str | None, str | None],
        moment: datetime | None,
    ) -> None:
        user_id, anonymous_id = who
        body = {
            "event": event,
            # The same whenever it is told again.
            "messageId": f"{kind}-{order_id}",
            "anonymousId": anonymous_id or (None if user_id else f"order-{order_id}"),
            "userId": user_id,
            "timestamp": (moment or datetime.now(UTC)).astimezone().isoformat(),
            "properties": {"order_id": order_id, **facts},
            "context": {"library": {"name": "shoptrail-orders-python", "version": "0.1.0"}},
        }
        self._send(json.dumps(body, default=_as_text, allow_nan=False).encode())

    def _send(self, body: bytes) -> None:
        headers = {"Authorization": self._authorization, "Content-Type": "application/json"}
        request = urllib.request.Request(self._url, body, headers)  # noqa: S310 - the shop's own
        deadline = time.monotonic() + self._patience_seconds
        pause = 0.5
        while True:
            wait = pause * random.uniform(0.5, 1)  # noqa: S311 - no secret
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                    return _check(json.load(answer))
            except urllib.error.HTTPError as error:
                failure = f"{error.code}: {error.read(500).decode(errors='replace')}"
                if error.code != 429 and error.code < 500:
                    raise NotStored(failure) from None
                wait = float(error.headers.get("Retry-After") or wait)
            except (OSError, ValueError) as error:
                failure = f"no answer: {error}"
            if time.monotonic() + wait > deadline:
                raise NotStored(failure)
            # As long as the gateway asks for in Retry-After, else ever longer, and not all shops
            # for the same time: asked again at once by all, a full gateway would stay full.
            time.sleep(wait)
            pause = min(pause * 2, 10)


def _check(answer: Mapping[str, Any]) -> None:
    if answer.get("accepted") or answer.get("duplicates"):
        return
    results = answer.get("results") or [{"verdict": "nothing"}]
    raise NotStored(json.dumps(results[0]))


def _exact(amount: Amount) -> Amount:
    if isinstance(amount, float):
        raise TypeError("amounts are decimals or texts, since floats aren't exact")
    return amount


def _as_text(value: Any) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    raise TypeError(f"{type(value).__name__} can't be told")
