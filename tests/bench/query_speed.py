"""Measures Query: how fast it follows the log, and how long its reports take.

`make bench-query` runs it. All figures of a table are of the same run, one after the other, and
each report stands beside the plain SQL over raw events that gives the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from sqlalchemy import text

from common.db import Database, open_database
from common.migrate import upgrade
from common.uid import new_uid
from services.query import figures, report_rows, repository
from services.query.columns import Dimension, Scope, Step
from services.query.duck import DuckColumns
from services.query.freshness import Cursor
from services.query.projection import fold
from services.query.quarters import quarter_of
from services.query.report_rows import Range
from services.query.reports import Stretch
from services.query.repository import Selection
from services.query.tallies import EVENT_TYPES
from shoptrail.ingest.v1.event_pb2 import Event, EventType

END = datetime(2026, 4, 1, tzinfo=UTC)
DAYS = 90
PAGE = 4000
NAMES = [("Product Viewed", 60), ("Product Added", 12), ("Order Completed", 3), ("", 25)]


def shop_events(count: int, *, seed: int) -> Iterator[Event]:
    """Visits to a few stores, a quarter of all to one, as they come in: nearly in order."""
    chance = random.Random(seed)  # noqa: S311 - nothing secret
    stores = [new_uid("sto") for _ in range(20)]
    kinds = [name for name, weight in NAMES for _ in range(weight)]
    begin = END - timedelta(days=DAYS)
    for number in range(count):
        store_uid = stores[0] if chance.random() < 0.25 else chance.choice(stores)
        name = chance.choice(kinds)
        product = f"p{chance.randrange(500)}"
        words: dict[str, Any] = {
            "context": {
                "page": {"path": f"/{product}", "url": f"https://shop.example/{product}"},
                "userAgent": "Mozilla/5.0 (X11; Linux x86_64) Mobile",
            },
            "properties": {"product_id": product, "name": product, "price": 9.5},
        }
        if name == "Order Completed":
            words["properties"] = {
                "order_id": f"o{number}",
                "total": 19,
                "currency": "EUR",
                "products": [{"product_id": product, "price": 9.5, "quantity": 2}],
            }
        moment = begin + timedelta(days=DAYS) * (number / count)
        moment -= timedelta(seconds=chance.expovariate(1 / 30))
        event = Event(
            uid=new_uid("evt"),
            store_uid=store_uid,
            message_id=f"m{number}",
            type=EventType.EVENT_TYPE_TRACK if name else EventType.EVENT_TYPE_PAGE,
            name=name,
            # A visitor comes back some ten times, within a few days.
            anonymous_id=f"b{(number // 20 + chance.randrange(2000)) // 10}",
            payload=json.dumps(words).encode(),
            position=number + 1,
        )
        event.occur_time.FromDatetime(moment)
        event.receive_time.FromDatetime(moment + timedelta(seconds=1))
        yield event


async def fill(database: Database, columns: DuckColumns, events: list[Event]) -> dict[str, float]:
    """Project the events; returns the seconds that each part took."""
    seconds = dict.fromkeys(("read", "figures", "listing", "columns"), 0.0)
    async with database.begin() as transaction:
        await repository.add_first_generation(transaction)
        await repository.add_cursors(transaction, 1, shard_count=1)
    memory = figures.Memory()
    for start in range(0, len(events), PAGE):
        began = perf_counter()
        projection = fold(events[start : start + PAGE], shard=0, after_position=start)
        read = perf_counter()
        async with database.begin() as transaction:
            await repository.lock_generation(transaction, 1)
            old, new = Cursor(0, start, None), Cursor(0, projection.position, None)
            assert await repository.move_cursor(transaction, 1, old, new)
            await figures.add_facts(transaction, 1, projection.facts, memory)
            folded = perf_counter()
            await repository.add_events(transaction, projection.events)
        listed = perf_counter()
        await columns.add(new, projection.facts)
        seconds["read"] += read - began
        seconds["figures"] += folded - read
        seconds["listing"] += listed - folded
        seconds["columns"] += perf_counter() - listed
    return seconds


async def timed(ask: Callable[[], Awaitable[object]], *, times: int = 15) -> tuple[float, float]:
    """The median and the longest time of an answer, in milliseconds, once warm."""
    await ask()
    took = []
    for _ in range(times):
        began = perf_counter()
        await ask()
        took.append(1000 * (perf_counter() - began))
    return median(took), max(took)


def questions(
    database: Database, columns: DuckColumns, store_uid: str
) -> dict[str, Callable[[], Awaitable[object]]]:
    """The reports that are measured, and the plain SQL beside them."""
    first, end = quarter_of(END - timedelta(days=30)), quarter_of(END)
    asked = Range(1, store_uid, first, end)
    days = Stretch(0, 30, first, 96)
    selection = Selection(1, store_uid, first, end, EVENT_TYPES)
    scope = Scope(store_uid, END - timedelta(days=90), END)
    steps = [Step(1, "Product Viewed"), Step(1, "Product Added"), Step(1, "Order Completed")]

    async def in_snapshot(ask: Callable[[Any], Awaitable[object]]) -> object:
        async with database.read() as snapshot:
            return await ask(snapshot)

    raw = text(
        "SELECT name, date(occur_time), count(*) FROM recorded_events"
        " WHERE store_uid = :store AND occur_time >= :start AND occur_time < :end GROUP BY 1, 2"
    ).bindparams(
        store=scope_key(store_uid),
        start=(END - timedelta(days=30)).replace(tzinfo=None).isoformat(" "),
        end=END.replace(tzinfo=None).isoformat(" "),
    )
    return {
        "counts by day, plain SQL": lambda: in_snapshot(lambda s: s.execute(raw)),
        "counts by day": lambda: in_snapshot(
            lambda s: repository.count_by_period(s, selection, days)
        ),
        "visitors by day": lambda: in_snapshot(
            lambda s: report_rows.count_visitors_by_period(s, asked, days)
        ),
        "revenue by day": lambda: in_snapshot(
            lambda s: report_rows.sum_revenue(s, asked, days, (1, 2))
        ),
        "sessions by day": lambda: in_snapshot(lambda s: report_rows.sum_sessions(s, asked, days)),
        "products": lambda: in_snapshot(
            lambda s: report_rows.rank_products_by_orders(s, asked, limit=50)
        ),
        "funnel, 90 days": lambda: columns.funnel(
            scope, steps, window=timedelta(days=7), breakdown=None, limit=100
        ),
        "retention, 13 weeks": lambda: columns.retention(
            scope,
            [END - timedelta(weeks=week) for week in range(13, -1, -1)],
            first=None,
            again=steps[2],
        ),
        "breakdown by page, 90 days": lambda: columns.break_down(
            scope, None, Dimension.PAGE, limit=100
        ),
    }


def scope_key(store_uid: str) -> bytes:
    """The store's uid as it stands in the database."""
    from common.uid import parse_uid

    return parse_uid("sto", store_uid)


async def measure(event_count: int, database_url: str | None) -> None:
    with tempfile.TemporaryDirectory() as directory:
        url = database_url or f"sqlite+aiosqlite:///{directory}/query.db"
        await upgrade("query", url)
        database = open_database(url)
        columns = DuckColumns(Path(directory) / "columns.duckdb")
        events = list(shop_events(event_count, seed=1))
        seconds = await fill(database, columns, events)
        whole = sum(seconds.values())
        lines = [f"{event_count:,} events, {url.partition(':')[0]}", "", "| part | µs an event |"]
        lines += ["| --- | --- |"]
        lines += [f"| {part} | {1e6 * took / event_count:.0f} |" for part, took in seconds.items()]
        lines += [f"| in all | {1e6 * whole / event_count:.0f} |", ""]
        lines += ["| report | median ms | longest ms |", "| --- | --- | --- |"]
        store_uid = max(
            {event.store_uid for event in events},
            key=lambda one: sum(event.store_uid == one for event in events[:2000]),
        )
        for name, ask in questions(database, columns, store_uid).items():
            middle, longest = await timed(ask)
            lines.append(f"| {name} | {middle:.1f} | {longest:.1f} |")
        sys.stdout.write("\n".join([*lines, ""]))
        await columns.close()
        await database.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--database-url", help="an empty schema; if not given, SQLite")
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.events, arguments.database_url))


if __name__ == "__main__":
    main()
