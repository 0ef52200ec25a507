"""Measures Query: how fast it follows the log, how late it is, and how long its reports take.

`make bench-query` runs it. All figures of a table are of the same run, one after the other. Beside
what reports take stands what the straightforward SQL over raw events takes, and what a column
store in the same process takes at the least, without people joined across their browsers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, process_time
from typing import Any
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import text

from common.db import Database, open_database
from common.migrate import upgrade
from common.page_token import PageTokens
from common.uid import new_uid, parse_uid
from deploy.local import mariadb
from services.query import figures, repository
from services.query.column_keeper import ColumnKeeper
from services.query.duck import DuckColumns
from services.query.freshness import Cursor, Sightings
from services.query.projection import fold
from services.query.projector import Projector
from services.query.servicer import QueryServicer
from shoptrail.ingest.v1 import ingest_pb2
from shoptrail.ingest.v1.event_pb2 import Event, EventType
from shoptrail.query.v1 import attribution_pb2, carts_pb2, trend_pb2
from shoptrail.query.v1 import query_pb2 as pb
from shoptrail.query.v1.report_pb2 import Interval, ProductRanking, SessionBreakdown
from tests.bench.machine import describe_run

END = datetime(2026, 4, 1, tzinfo=UTC)
DAYS = 90
PAGE = 4000
NAMES = [("Product Viewed", 60), ("Product Added", 12), ("Order Completed", 3), ("", 25)]
STORES = [new_uid("sto") for _ in range(20)]
PRODUCTS = 500

_RESULTS = Path(__file__).parent / "RESULTS.md"
_SECTION = re.compile(r"<!-- query -->.*<!-- /query -->", re.DOTALL)
_LAG_SECONDS = 10
_SECONDS_A_REPORT = 4.0
_LEAST_TIMES, _MOST_TIMES = 5, 100

Ask = Callable[[], Awaitable[object]]


def shop_events(count: int, *, seed: int) -> Iterator[Event]:
    """Visits to a few stores, a quarter of all to one, as they come in: nearly in order."""
    chance = random.Random(seed)  # noqa: S311 - nothing secret
    kinds = [name for name, weight in NAMES for _ in range(weight)]
    begin = END - timedelta(days=DAYS)
    for number in range(count):
        store_uid = STORES[0] if chance.random() < 0.25 else chance.choice(STORES)
        name = chance.choice(kinds)
        # A few products are what most look at.
        product = f"p{min(int(chance.paretovariate(0.8)), PRODUCTS)}"
        words: dict[str, Any] = {
            "context": {
                "page": {"path": f"/{product}", "url": f"https://shop.example/{product}"},
                "userAgent": "Mozilla/5.0 (X11; Linux x86_64) Mobile",
            },
            "properties": {"product_id": product, "name": product, "price": 9.5},
        }
        if chance.random() < 0.02:
            words["context"]["campaign"] = {"source": "news", "name": f"c{chance.randrange(9)}"}
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


class Filling:
    """Projects events as the projector does, and notes what each part takes of the processor."""

    def __init__(self, database: Database, columns: DuckColumns, events: Iterator[Event]) -> None:
        self._database = database
        self._keeper = ColumnKeeper(database, columns)
        self._events = events
        self._memory = figures.Memory()
        self.position = 0
        self.seconds = dict.fromkeys(("reading", "figures", "listing", "columns"), 0.0)
        self.wall_seconds = 0.0

    async def fill_up_to(self, count: int) -> None:
        async with self._database.begin() as transaction:
            await repository.add_first_generation(transaction)
            await repository.add_cursors(transaction, 1, shard_count=1)
        while self.position < count:
            page = list(islice(self._events, min(PAGE, count - self.position)))
            began = perf_counter()
            await self._project(page)
            self.wall_seconds += perf_counter() - began
            start = process_time()
            while await self._keeper.copy_page():
                pass
            self.seconds["columns"] += process_time() - start

    async def _project(self, page: list[Event]) -> None:
        times = [process_time()]
        projection = fold(page, shard=0, after_position=self.position)
        times.append(process_time())
        async with self._database.begin() as transaction:
            await repository.lock_generation(transaction, 1)
            known = (await repository.list_cursors(transaction, 1))[0]
            moved = Cursor(0, projection.position, projection.events[-1].receive_time)
            assert await repository.move_cursor(transaction, 1, known, moved)
            await figures.add_facts(transaction, 1, projection.facts, self._memory)
            times.append(process_time())
            await repository.add_events(transaction, projection.events)
        times.append(process_time())
        for part, begin, end in zip(self.seconds, times, times[1:], strict=False):
            self.seconds[part] += end - begin
        self.position = projection.position


class PacedLog:
    """As much of Ingest as the projector calls: a log that grows at a rate."""

    def __init__(self, events: Sequence[Event], *, rate: int) -> None:
        self._events = events
        self._rate = rate
        self._began = perf_counter()
        self._seen = 0
        self.lags: list[float] = []
        """How many seconds after it came each event was committed."""

    async def ReadLog(
        self, request: ingest_pb2.ReadLogRequest, timeout: float
    ) -> ingest_pb2.ReadLogResponse:
        after, now = request.after_position, perf_counter()
        # All before it are committed, or it wouldn't ask.
        self.lags += [
            now - self._began - position / self._rate for position in range(self._seen, after)
        ]
        self._seen = after
        while (head := self._head()) <= after < len(self._events):  # noqa: ASYNC110 - only time passes
            await asyncio.sleep(0.005)
        if after >= len(self._events):
            await asyncio.sleep(0.05)
        head = min(head, len(self._events))
        return ingest_pb2.ReadLogResponse(
            events=self._events[after : min(head, after + request.page_size)],
            head_position=head,
            as_of_time=Timestamp(seconds=int(END.timestamp())),
            shard_count=1,
        )

    def _head(self) -> int:
        return int((perf_counter() - self._began) * self._rate)


async def measure_lag(url: str, rate: int) -> tuple[float, float, float]:
    """The median and the 99th percentile of the lag at a rate, and the processor's load."""
    await upgrade("query", url)
    database = open_database(url)
    events = list(shop_events(rate * _LAG_SECONDS, seed=2))
    log: Any = PacedLog(events, rate=rate)
    began, start = perf_counter(), process_time()
    projecting = asyncio.create_task(Projector(database, log, sightings=Sightings()).run())
    until = began + 5 * _LAG_SECONDS
    while len(log.lags) < len(events) and perf_counter() < until:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.05)
    load = (process_time() - start) / (perf_counter() - began)
    projecting.cancel()
    await asyncio.wait([projecting])
    await database.dispose()
    return median(log.lags), quantiles(log.lags, n=100)[98], load


async def timed(ask: Ask) -> tuple[float, float]:
    """The median and the 99th percentile of an answer's time, in milliseconds, once warm."""
    await ask()
    took: list[float] = []
    began = perf_counter()
    while len(took) < _LEAST_TIMES or (
        len(took) < _MOST_TIMES and perf_counter() - began < _SECONDS_A_REPORT
    ):
        start = perf_counter()
        await ask()
        took.append(1000 * (perf_counter() - start))
    return median(took), sorted(took)[min(int(len(took) * 0.99), len(took) - 1)]


async def once(ask: Ask) -> float:
    """What an answer takes, in milliseconds: of three, the middle."""
    took = []
    for _ in range(3):
        start = perf_counter()
        await ask()
        took.append(1000 * (perf_counter() - start))
    return median(took)


def reports(servicer: QueryServicer, end: datetime) -> dict[str, Ask]:
    """What is asked, as the gateway would: of the store with a quarter of all events."""
    context: Any = None  # None of these look at it.

    def span(days: int) -> dict[str, Any]:
        first, last = Timestamp(), Timestamp()
        first.FromDatetime(end - timedelta(days=days))
        last.FromDatetime(end)
        return {"store_uid": STORES[0], "start_time": first, "end_time": last}

    steps = ["Product Viewed", "Product Added", "Order Completed"]
    by_entry = SessionBreakdown.SESSION_BREAKDOWN_ENTRY_PAGE
    by_views = ProductRanking.PRODUCT_RANKING_VIEWS
    day, hour, week = Interval.INTERVAL_DAY, Interval.INTERVAL_HOUR, Interval.INTERVAL_WEEK
    ask = servicer
    of_month, of_quarter = span(30), span(90)
    return {
        "counts by day": lambda: ask.CountEvents(
            pb.CountEventsRequest(**of_month, interval=day), context
        ),
        "counts by hour, 7 days": lambda: ask.CountEvents(
            pb.CountEventsRequest(**span(7), interval=hour), context
        ),
        "visitors by day": lambda: ask.CountVisitors(
            pb.CountVisitorsRequest(**of_month, interval=day), context
        ),
        "revenue by day": lambda: ask.ReportRevenue(
            pb.ReportRevenueRequest(**of_month, interval=day), context
        ),
        "sessions by day": lambda: ask.ReportSessions(
            pb.ReportSessionsRequest(**of_month, interval=day), context
        ),
        "sessions by entry page": lambda: ask.ReportSessions(
            pb.ReportSessionsRequest(**of_month, breakdown=by_entry), context
        ),
        "products by orders": lambda: ask.ReportProducts(
            pb.ReportProductsRequest(**of_month), context
        ),
        "products by views": lambda: ask.ReportProducts(
            pb.ReportProductsRequest(**of_month, ranking=by_views), context
        ),
        "funnel, 90 days": lambda: ask.ReportFunnel(
            pb.ReportFunnelRequest(**of_quarter, steps=steps), context
        ),
        "retention by week, 90 days": lambda: ask.ReportRetention(
            pb.ReportRetentionRequest(**of_quarter, interval=week, again=steps[2]), context
        ),
        "trend by page": lambda: ask.ReportTrend(
            trend_pb2.ReportTrendRequest(**of_month, breakdown="page"), context
        ),
        "breakdown by a property, 90 days": lambda: ask.BreakDownEvents(
            pb.BreakDownEventsRequest(**of_quarter, breakdown="properties.product_id"), context
        ),
        "carts": lambda: ask.ReportCarts(carts_pb2.ReportCartsRequest(**of_month), context),
        "attribution": lambda: ask.ReportAttribution(
            attribution_pb2.ReportAttributionRequest(**of_month), context
        ),
    }


def plain_sql(database: Database, end: datetime) -> dict[str, Ask]:
    """The same of the listing, as one would write it first."""
    in_range = "store_uid = :store AND occur_time >= :start AND occur_time < :end"
    after = f"""SELECT s.anonymous_id, min(e.occur_time) AS time FROM {{}} s
        JOIN recorded_events e ON e.anonymous_id = s.anonymous_id AND e.name = '{{}}'
        AND e.occur_time > s.time AND {in_range} GROUP BY s.anonymous_id"""
    statements = {
        "counts by day": (
            30,
            f"SELECT name, date(occur_time), count(*) FROM recorded_events WHERE {in_range}"
            " GROUP BY name, date(occur_time)",
        ),
        "visitors by day": (
            30,
            f"SELECT date(occur_time), count(DISTINCT anonymous_id) FROM recorded_events"
            f" WHERE {in_range} GROUP BY date(occur_time)",
        ),
        "funnel, 90 days": (
            90,
            f"WITH viewed AS (SELECT anonymous_id, min(occur_time) AS time FROM recorded_events"
            f" WHERE {in_range} AND name = 'Product Viewed' GROUP BY anonymous_id),"
            f" added AS ({after.format('viewed', 'Product Added')}),"
            f" ordered AS ({after.format('added', 'Order Completed')})"
            " SELECT (SELECT count(*) FROM viewed), (SELECT count(*) FROM added),"
            " (SELECT count(*) FROM ordered)",
        ),
    }

    async def ask(days: int, statement: str) -> object:
        bound = text(statement).bindparams(
            store=parse_uid("sto", STORES[0]),
            start=(end - timedelta(days=days)).replace(tzinfo=None).isoformat(" "),
            end=end.replace(tzinfo=None).isoformat(" "),
        )
        async with database.read() as snapshot:
            return (await snapshot.execute(bound)).all()

    return {name: partial(ask, days, statement) for name, (days, statement) in statements.items()}


def column_store(columns: DuckColumns, end: datetime) -> dict[str, Ask]:
    """The same of the columns, by hand: what an embedded column store takes at the least."""
    in_range = "store = $store AND time >= $start AND time < $end"
    days = "time // 86400000000"
    statements = {
        "counts by day": (30, f"SELECT name, {days}, count(*) FROM events_2 WHERE {in_range}"),
        "visitors by day": (
            30,
            f"SELECT {days}, count(DISTINCT browser) FROM events_2 WHERE {in_range}",
        ),
        "products by views": (
            30,
            "SELECT json_extract_string(properties, '/product_id'), count(*) FROM events_2"
            f" WHERE name = 'Product Viewed' AND {in_range}",
        ),
    }

    def ask(days: int, statement: str) -> Awaitable[object]:
        start, last = (
            int(time.timestamp() * 1_000_000) for time in (end - timedelta(days=days), end)
        )
        store = UUID(bytes=parse_uid("sto", STORES[0]))
        return columns._ask(
            f"{statement} GROUP BY ALL", {"store": store, "start": start, "end": last}
        )

    return {name: partial(ask, days, statement) for name, (days, statement) in statements.items()}


async def table_of_reports(
    database: Database, columns: DuckColumns, end: datetime, *, compare: bool
) -> list[str]:
    servicer = QueryServicer(
        database,
        sightings=Sightings(),
        columns=columns,
        page_tokens=PageTokens(bytes(32)),
        now=lambda: end,
    )
    sql = plain_sql(database, end) if compare else {}
    limit = column_store(columns, end)
    lines = [
        "| report, 30 days if it doesn't say | median ms | p99 ms | plain SQL ms | columns ms |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, ask in reports(servicer, end).items():
        middle, longest = await timed(ask)
        others = [f"{await once(asks[name]):.1f}" if name in asks else "" for asks in (sql, limit)]
        lines.append(f"| {name} | {middle:.1f} | {longest:.1f} | {' | '.join(others)} |")
    return lines


@asynccontextmanager
async def database_urls(directory: Path, *, on_mariadb: bool) -> AsyncIterator[list[str]]:
    """Two empty databases of Query's."""
    if not on_mariadb:
        yield [f"sqlite+aiosqlite:///{directory}/query{number}.db" for number in range(2)]
        return
    passwords = {"query": secrets.token_hex(8), "ingest": secrets.token_hex(8)}
    async with mariadb.running(
        directory / "mariadb", passwords=passwords, migration_passwords=passwords
    ) as server:
        # The other's schema is as good as any.
        yield [server.migration_url(service) for service in passwords]


async def measure(event_counts: Sequence[int], rate: int, *, on_mariadb: bool) -> str:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with database_urls(directory, on_mariadb=on_mariadb) as (url, other_url):
            await upgrade("query", url)
            database = open_database(url)
            columns = DuckColumns(directory / "columns.duckdb")
            whole = max(event_counts)
            filling = Filling(database, columns, shop_events(whole, seed=1))
            lines = [describe_run(), f"- {'MariaDB' if on_mariadb else 'SQLite'}", ""]
            for count in sorted(event_counts):
                await filling.fill_up_to(count)
                # As far as the events have come by then.
                end = END - timedelta(days=DAYS) * (1 - count / whole)
                lines += [f"After {count:,} events:", ""]
                compare = count == min(event_counts)
                lines += [*await table_of_reports(database, columns, end, compare=compare), ""]
            lines += ["| part of following the log | µs of processor an event |", "| --- | --- |"]
            lines += [
                f"| {part} | {1e6 * took / whole:.0f} |" for part, took in filling.seconds.items()
            ]
            followed = whole / filling.wall_seconds
            lines += ["", f"Projected, without the columns: {followed:,.0f} events a second.", ""]
            middle, highest, load = await measure_lag(other_url, rate)
            lines.append(
                f"At {rate:,} events a second, for {_LAG_SECONDS} s, an event is in the figures"
                f" {middle:.2f} s after it came (median), {highest:.2f} s at the 99th percentile,"
                f" with {load:.0%} of a processor in this process."
            )
            await columns.close()
            await database.dispose()
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write into RESULTS.md if told to."""
    parser = argparse.ArgumentParser(prog="make bench-query", description=__doc__)
    parser.add_argument(
        "--events",
        type=int,
        nargs="+",
        default=[200_000],
        help="how many; at each of several numbers the reports are measured (200000)",
    )
    parser.add_argument("--rate", type=int, default=5000, help="at which lag is measured (5000)")
    parser.add_argument("--mariadb", action="store_true", help="not SQLite, but a private MariaDB")
    parser.add_argument("--write", action="store_true", help="the tables into RESULTS.md")
    arguments = parser.parse_args()
    table = asyncio.run(measure(arguments.events, arguments.rate, on_mariadb=arguments.mariadb))
    sys.stdout.write(f"{table}\n")
    if arguments.write:
        section = f"<!-- query -->\n{table}\n<!-- /query -->"
        _RESULTS.write_text(_SECTION.sub(lambda _: section, _RESULTS.read_text()))


if __name__ == "__main__":
    main()
