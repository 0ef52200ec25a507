"""Gives the demo store of a mesh that runs here a history, and checks what the reports make of it.

python -m deploy.local.demo_data [--days 90] [--until 2026-11-25] [--directory .run]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from deploy.local.demo_history import CURRENCY, Event, History, make_history
from deploy.local.gateway_client import Answer, GatewayClient, GatewayUnreachableError

_BATCH_EVENTS = 500
_AT_ONCE = 2
_TRIES = 10
_PAUSE_SECONDS = 2.0
_PATIENCE_SECONDS = 120.0
_POLL_SECONDS = 0.2


class HistoryNotStored(Exception):
    """The mesh didn't take all of the history, or its reports don't show it."""


@dataclass(frozen=True, slots=True)
class Store:
    """Whose history it is."""

    gateway: GatewayClient
    store_uid: str
    secret_key: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What the history comes to. Amounts are plain decimals."""

    event_count: int
    order_count: int
    gross: str
    refund_count: int
    refunded: str
    cancellation_count: int
    cancelled: str
    net: str


def figures_of(history: History) -> Figures:
    """What the reports must say."""
    totals = history.totals
    return Figures(
        event_count=len(history.events),
        order_count=totals.order_count,
        gross=_amount(totals.gross),
        refund_count=totals.refund_count,
        refunded=_amount(totals.refunded),
        cancellation_count=totals.cancellation_count,
        cancelled=_amount(totals.cancelled),
        net=_amount(totals.net),
    )


async def send_history(store: Store, history: History) -> None:
    """Have all events stored; what is stored already counts once. Raises `HistoryNotStored`."""
    events = history.events
    batches = [events[at : at + _BATCH_EVENTS] for at in range(0, len(events), _BATCH_EVENTS)]
    free = asyncio.Semaphore(_AT_ONCE)

    async def send(batch: Sequence[Event]) -> None:
        async with free:
            for _ in range(_TRIES):
                answer = await store.gateway.post(
                    "/v1/batch", key=store.secret_key, body={"batch": batch}
                )
                if answer.status not in (429, 503):
                    break
                # A machine with more to do than this. What was stored meanwhile counts once.
                await asyncio.sleep(_PAUSE_SECONDS)
        if answer.status != 200:
            raise HistoryNotStored(f"The gateway answered {answer.status}: {answer.body}")
        if answer.body["accepted"] + answer.body["duplicates"] != len(batch):
            raise HistoryNotStored(f"Some events were not taken: {answer.body['results'][:3]}")

    await asyncio.gather(*map(send, batches))


async def read_figures(store: Store, history: History) -> Figures:
    """What the reports say of the history's days now. Raises `HistoryNotStored`."""
    counts = await _report(store, "event-counts", history)
    revenue = await _report(store, "revenue", history)
    totals = [
        each["total"] for each in revenue.get("currencies", []) if each["currency"] == CURRENCY
    ]
    total: dict[str, Any] = totals[0] if totals else {}

    def amount(name: str) -> str:
        return _amount(round(float(total.get(name) or 0) * 100))

    return Figures(
        event_count=int(counts.get("total_count", 0)),
        order_count=int(total.get("order_count", 0)),
        gross=amount("gross"),
        refund_count=int(total.get("refund_count", 0)),
        refunded=amount("refunded"),
        cancellation_count=int(total.get("cancellation_count", 0)),
        cancelled=amount("cancelled"),
        net=amount("net"),
    )


async def wait_for_figures(store: Store, history: History) -> Figures:
    """What the reports say once they show all events of the history. Raises `HistoryNotStored`."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        figures = await read_figures(store, history)
        if figures.event_count >= len(history.events):
            return figures
        if time.monotonic() > deadline:
            raise HistoryNotStored(f"The reports only show {figures.event_count} events so far.")
        await asyncio.sleep(_POLL_SECONDS)


async def _report(store: Store, name: str, history: History) -> dict[str, Any]:
    asked = {
        "start_time": history.start.isoformat(),
        "end_time": history.end.isoformat(),
        "interval": "DAY",
    }
    path = f"/v1/stores/{store.store_uid}/reports/{name}?{urlencode(asked)}"
    answer: Answer = await store.gateway.get(path, key=store.secret_key, timeout_seconds=30)
    if answer.status != 200:
        raise HistoryNotStored(f"The report answered {answer.status}: {answer.body}")
    body: dict[str, Any] = answer.body
    return body


def _amount(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"


def main() -> int:
    """Send the history; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.demo_data", description=__doc__)
    parser.add_argument("--days", type=int, default=90, help="how many (90)")
    parser.add_argument(
        "--until",
        type=date.fromisoformat,
        default=datetime.now(UTC).date(),
        help="the day before which the history ends (today, by UTC)",
    )
    parser.add_argument(
        "--directory", type=Path, default=Path(".run"), help="where `make run` keeps its files"
    )
    arguments = parser.parse_args()
    try:
        mesh = json.loads((arguments.directory / "mesh.json").read_bytes())
    except FileNotFoundError:
        sys.stderr.write("No mesh runs here: start one with `make run`.\n")
        return 1
    store = Store(
        GatewayClient(mesh["gateway"].removeprefix("http://")),
        mesh["store_uid"],
        mesh["secret_key"],
    )
    history = make_history(until=arguments.until, days=arguments.days)
    try:
        return asyncio.run(_fill(store, history))
    except (HistoryNotStored, GatewayUnreachableError) as failure:
        sys.stderr.write(f"{failure}\n")
        return 1


async def _fill(store: Store, history: History) -> int:
    began = time.monotonic()
    await send_history(store, history)
    stored = time.monotonic()
    reported = await wait_for_figures(store, history)
    expected = figures_of(history)
    reported_at = time.monotonic()
    lines = [
        f"{len(history.events)} events, {history.start:%Y-%m-%d} to {history.end:%Y-%m-%d}:"
        f" stored in {stored - began:.1f} s, in the reports {reported_at - stored:.1f} s later.",
        "",
        f"  {'':20} {'made up':>12} {'reported':>12}",
    ]
    for name in Figures.__slots__:
        title = name.replace("_", " ")
        lines.append(f"  {title:20} {getattr(expected, name):>12} {getattr(reported, name):>12}")
    if reported != expected:
        lines += ["", "The reports have more: the store has other events of these days."]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
