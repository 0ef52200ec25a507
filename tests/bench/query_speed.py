"""Measures Query: how fast it follows the log, how late it is, and how long its reports take.

`make bench-query` runs it. Beside what reports take stands what the straightforward SQL over raw
events takes, and what a column store in the same process takes at the least, without people
joined across their browsers. With `--directory` what was filled stays, is gone on with, and can
be measured step by step: to fill needs no quiet machine, and to measure does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, process_time
from typing import Any
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import REGISTRY
from sqlalchemy import text

from common.collector import collect_less
from common.db import Database, open_database
from common.migrate import upgrade
from common.page_token import PageTokens
from common.uid import parse_uid
from deploy.local import mariadb
from services.query import figures, repository
from services.query.column_keeper import ColumnKeeper
from services.query.duck import DuckColumns
from services.query.freshness import Cursor, Sightings
from services.query.handover import Batch, Handover
from services.query.projection import fold
from services.query.projector import Projector
from services.query.servicer import QueryServicer
from shoptrail.ingest.v1 import ingest_pb2
from shoptrail.ingest.v1.event_pb2 import Event
from shoptrail.query.v1 import attribution_pb2, carts_pb2, trend_pb2
from shoptrail.query.v1 import query_pb2 as pb
from shoptrail.query.v1.report_pb2 import Interval, ProductRanking, SessionBreakdown
from tests.bench.machine import describe_run
from tests.bench.query_shop import CHUNK_EVENTS, STORES, end_of, shop_events

FILLING, REPORTS, FOLLOWING = "fill", "reports", "following"
STEPS = (FILLING, REPORTS, FOLLOWING)
STARTING = "start"

_RESULTS = Path(__file__).parent / "RESULTS.md"
_SECTION = re.compile(r"<!-- query -->.*<!-- /query -->", re.DOTALL)
_PAGE_EVENTS = 5000
_FOLLOWED_EVENTS = 200_000
_LAG_SECONDS = 10
_SECONDS_A_REPORT = 2.5
_LEAST_TIMES, _MOST_TIMES = 5, 100
_LONG_MILLISECONDS = 1000
# Without all the others, which take long to collect.
_EVENTS_METRIC: Any = REGISTRY.restricted_registry(["query_projector_events_total"])
# Each service's schema is as good as another's.
_SCHEMAS = ("query", "ingest", "keys", "maintenance")

Ask = Callable[[], Awaitable[object]]


class Filling:
    """Projects events as the projector does, and copies them into the columns."""

    def __init__(self, database: Database, columns: DuckColumns) -> None:
        self._database = database
        self._handover = Handover()
        self._keeper = ColumnKeeper(database, columns, handover=self._handover)
        self._memory = figures.Memory()
        self._position = 0

    async def fill_up_to(self, whole: int) -> None:
        """Go on from where it is, and say how far that is."""
        async with self._database.begin() as transaction:
            await repository.add_first_generation(transaction)
            await repository.add_cursors(transaction, 1, shard_count=1)
            self._position = (await repository.list_cursors(transaction, 1))[0].position
        while await self._keeper.copy_page():
            pass
        began, first, told = perf_counter(), self._position, 0.0
        copying = asyncio.create_task(self._keeper.copy_page())
        for page in _pages_after(self._position, whole):
            await self._project(page)
            await copying
            copying = asyncio.create_task(self._keeper.copy_page())
            took = perf_counter() - began
            if took - told > 5 or self._position == whole:
                told = took
                pace = (self._position - first) / took
                left = (whole - self._position) / pace
                sys.stderr.write(
                    f"{self._position:,} of {whole:,} events, {pace:,.0f} a second,"
                    f" {left / 60:.1f} min left\n"
                )
        await copying

    async def _project(self, page: list[Event]) -> None:
        projection = fold(page, shard=0, after_position=self._position)
        async with self._database.begin() as transaction:
            await repository.lock_generation(transaction, 1)
            known = (await repository.list_cursors(transaction, 1))[0]
            moved = Cursor(0, projection.position, projection.events[-1].receive_time)
            assert await repository.move_cursor(transaction, 1, known, moved)
            await figures.add_facts(transaction, 1, projection.facts, self._memory)
            await repository.add_events(transaction, projection.events)
        self._handover.put(Batch(known.position, moved, projection.facts))
        self._position = projection.position


def _pages_after(position: int, whole: int) -> Iterator[list[Event]]:
    """The events from a position on, made by another process while these are projected."""
    skipped = position % CHUNK_EVENTS
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        firsts = count(position - skipped, CHUNK_EVENTS)
        coming = pool.submit(_make_chunk, next(firsts))
        while position < whole:
            chunk = coming.result()
            coming = pool.submit(_make_chunk, next(firsts))
            events = [Event.FromString(event) for event in chunk[skipped:]]
            skipped = 0
            events = events[: whole - position]
            for start in range(0, len(events), _PAGE_EVENTS):
                yield events[start : start + _PAGE_EVENTS]
            position += len(events)
        coming.cancel()


def _make_chunk(first: int) -> list[bytes]:
    events = islice(shop_events(seed=1, first=first), CHUNK_EVENTS)
    return [event.SerializeToString() for event in events]


class PacedLog:
    """As much of Ingest as the projector calls: a log that grows at a rate."""

    def __init__(self, events: Sequence[Event], *, rate: float) -> None:
        # On the wire, so that it costs next to nothing to answer: that is another's work.
        self._events = [
            ingest_pb2.ReadLogResponse(events=[event]).SerializeToString() for event in events
        ]
        self._rate = rate
        self._began = perf_counter()

    def came_at(self, position: int) -> float:
        """When the event at a position came."""
        return self._began + position / self._rate

    async def ReadLog(
        self, request: ingest_pb2.ReadLogRequest, timeout: float
    ) -> ingest_pb2.ReadLogResponse:
        after = request.after_position
        while self._head() <= after < len(self._events):  # noqa: ASYNC110 - only time passes
            await asyncio.sleep(0.005)
        if after >= len(self._events):
            await asyncio.sleep(0.05)
        head = self._head()
        rest = ingest_pb2.ReadLogResponse(
            head_position=head,
            as_of_time=Timestamp(seconds=int(end_of(0).timestamp())),
            shard_count=1,
        )
        page = self._events[after : min(head, after + request.page_size)]
        # As it comes from a connection: messages that follow one another are merged.
        return ingest_pb2.ReadLogResponse.FromString(b"".join([*page, rest.SerializeToString()]))

    def _head(self) -> int:
        return min(int((perf_counter() - self._began) * self._rate), len(self._events))


@dataclass(slots=True)
class Following:
    """How a log was followed."""

    seconds: float = 0.0
    processor_seconds: float = 0.0
    lags: list[float] = field(default_factory=list)
    """How many seconds after it came each event was committed, at the latest."""
    answers: list[float] = field(default_factory=list)
    """What a report took meanwhile, in milliseconds."""


async def follow(
    url: str, columns_path: Path, events: Sequence[Event], *, rate: float, alone: bool = False
) -> Following:
    """Have a log followed, into columns too, while a report is asked for ten times a second.

    Alone, by the projector only.
    """
    await upgrade("query", url)
    database = open_database(url)
    columns = DuckColumns(columns_path)
    handover = Handover()
    answering = _servicer(database, columns, end_of(0) + timedelta(days=30))
    ask = reports(answering, end_of(0) + timedelta(days=30))["counts by day"]
    found = Following()
    before = _followed()
    log: Any = PacedLog(events, rate=rate)
    projector = Projector(database, log, sightings=Sightings(), handover=handover)
    began, start = perf_counter(), process_time()
    tasks = [asyncio.create_task(projector.run())]
    if not alone:
        keeper = ColumnKeeper(database, columns, handover=handover)
        tasks.append(asyncio.create_task(keeper.run()))
        tasks.append(asyncio.create_task(_ask_again_and_again(ask, found.answers)))
    seen = 0
    while seen < len(events) and perf_counter() - began < 20 * _LAG_SECONDS:
        await asyncio.sleep(0.02)
        reached = int(_followed() - before)
        now = perf_counter()
        found.lags += [now - log.came_at(position) for position in range(seen, reached)]
        seen = reached
    found.seconds = perf_counter() - began
    found.processor_seconds = process_time() - start
    assert seen == len(events), "the log was not followed in time"
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await columns.close()
    await database.dispose()
    return found


async def _ask_again_and_again(ask: Ask, answers: list[float]) -> None:
    while True:
        await asyncio.sleep(0.1)
        began = perf_counter()
        await ask()
        answers.append(1000 * (perf_counter() - began))


def _followed() -> float:
    """How many events the projector says it has committed."""
    for metric in _EVENTS_METRIC.collect():
        for sample in metric.samples:
            if sample.name.endswith("_total") and sample.labels == {"shard": "0"}:
                return float(sample.value)
    return 0.0


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
    """What an answer takes, in milliseconds: of three, the middle; if that is long, of one."""
    took: list[float] = []
    while len(took) < 3 and (not took or took[0] < _LONG_MILLISECONDS):
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

    def time_of(pick: str, name: bytes) -> str:
        return f"{pick}(CASE WHEN name = x'{name.hex()}' THEN occur_time END)"

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
            # Not quite a funnel, which joins events with events and has no end: of each the last
            # counts.
            "SELECT count(viewed), sum(added > viewed), sum(added > viewed AND ordered > added)"
            f" FROM (SELECT anonymous_id, {time_of('min', b'Product Viewed')} AS viewed,"
            f" {time_of('max', b'Product Added')} AS added,"
            f" {time_of('max', b'Order Completed')} AS ordered"
            f" FROM recorded_events WHERE {in_range} GROUP BY anonymous_id) people",
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
        "counts by day": (30, f"SELECT name, {days}, count(*) FROM events_3 WHERE {in_range}"),
        "visitors by day": (
            30,
            f"SELECT {days}, count(DISTINCT browser) FROM events_3 WHERE {in_range}",
        ),
        "products by views": (
            30,
            "SELECT json_extract_string(properties, '/product_id'), count(*) FROM events_3"
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


def _servicer(database: Database, columns: DuckColumns, now: datetime) -> QueryServicer:
    return QueryServicer(
        database,
        sightings=Sightings(),
        columns=columns,
        page_tokens=PageTokens(bytes(32)),
        now=lambda: now,
    )


async def measure_reports(
    database: Database, columns: DuckColumns, event_count: int
) -> dict[str, list[float | None]]:
    """Of each report the median and the 99th percentile, and what SQL and columns take."""
    end = end_of(event_count)
    sql, limit = plain_sql(database, end), column_store(columns, end)
    asks = reports(_servicer(database, columns, end), end)
    measured: dict[str, list[float | None]] = {}
    for name, ask in asks.items():
        middle, longest = await timed(ask)
        others = [await once(same[name]) if name in same else None for same in (sql, limit)]
        measured[name] = [middle, longest, *others]
        sys.stderr.write(f"{name}: {middle:.1f} ms, {longest:.1f} ms\n")
    return measured


async def _filled(database: Database) -> int:
    """How many events there are."""
    async with database.read() as snapshot:
        return sum(cursor.position for cursor in await repository.list_cursors(snapshot, 1))


async def first_answer(
    database: Database, columns: DuckColumns, event_count: int, began: float
) -> str:
    """How long it takes to answer on what is there already, in a sentence."""
    end = end_of(event_count)
    asks = reports(_servicer(database, columns, end), end)
    for name in ("counts by day", "funnel, 90 days"):
        await asks[name]()
    took = 1000 * (perf_counter() - began)
    return (
        f"Started beside {event_count:,} events, counts by day and a funnel are answered"
        f" after {took:.0f} ms."
    )


async def measure_following(
    urls: Sequence[str], directory: Path, *, rate: int, of: int
) -> list[str]:
    """How fast a log is followed from its beginning, and how late at a rate; in sentences."""
    whole = list(islice(shop_events(seed=2), of))
    projected = await follow(urls[0], directory / "none.duckdb", whole, rate=1e12, alone=True)
    rebuilt = await follow(urls[1], directory / "rebuilt.duckdb", whole, rate=1e12)
    pace = timedelta(seconds=1 / rate)
    live = list(islice(shop_events(seed=3, pace=pace), rate * _LAG_SECONDS))
    paced = await follow(urls[2], directory / "paced.duckdb", live, rate=rate)

    def cost(found: Following, events: Sequence[Event]) -> str:
        return f"{1e6 * found.processor_seconds / len(events):.0f} µs of processor an event"

    return [
        f"From the beginning of a log of {of:,} events, the projector alone:"
        f" {of / projected.seconds:,.0f} events a second, with {cost(projected, whole)}.",
        "The same into the columns too, with counts by day asked ten times a second:"
        f" {of / rebuilt.seconds:,.0f} events a second, with {cost(rebuilt, whole)};"
        f" an answer takes {_p99(rebuilt.answers):.0f} ms at the 99th percentile.",
        f"The same at {rate:,} events a second for {_LAG_SECONDS} s, each from another visitor than"
        f" the one before: an event is in the figures {median(paced.lags):.2f} s after it came"
        f" (median), {_p99(paced.lags):.2f} s at the 99th percentile, with {cost(paced, live)};"
        f" an answer takes {_p99(paced.answers):.0f} ms at the 99th percentile.",
    ]


def _p99(took: Sequence[float]) -> float:
    return quantiles(took, n=100)[98] if len(took) > 1 else took[0]


@asynccontextmanager
async def database_urls(directory: Path, *, on_mariadb: bool) -> AsyncIterator[list[str]]:
    """Databases of Query's: the first is kept, the others are empty."""
    if not on_mariadb:
        with tempfile.TemporaryDirectory(dir=directory) as name:
            paths = [directory / "query.db", *(Path(name, f"{each}.db") for each in _SCHEMAS[1:])]
            yield [f"sqlite+aiosqlite:///{path}" for path in paths]
        return
    passwords = {name: secrets.token_hex(8) for name in _SCHEMAS}
    async with mariadb.running(
        directory / "mariadb", passwords=passwords, migration_passwords=passwords
    ) as server:
        yield [server.migration_url(service) for service in _SCHEMAS]


async def measure(arguments: argparse.Namespace, directory: Path) -> str:
    """Do the steps; returns what has been measured in the directory so far, as Markdown."""
    kept = directory / "measured.json"
    measured: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    async with database_urls(directory, on_mariadb=arguments.mariadb) as urls:
        if FILLING in arguments.steps or REPORTS in arguments.steps:
            await _fill_and_ask(urls[0], directory, arguments, measured)
        if FOLLOWING in arguments.steps:
            with tempfile.TemporaryDirectory(dir=directory) as name:
                measured[FOLLOWING] = await measure_following(
                    urls[1:], Path(name), rate=arguments.rate, of=arguments.followed
                )
    kept.write_text(json.dumps(measured))
    described = f"- {'MariaDB' if arguments.mariadb else 'SQLite'}"
    return "\n".join([describe_run(), described, *_tables(measured)])


async def _fill_and_ask(
    url: str, directory: Path, arguments: argparse.Namespace, measured: dict[str, Any]
) -> None:
    await upgrade("query", url)
    database = open_database(url)
    began = perf_counter()
    columns = DuckColumns(directory / "columns.duckdb")
    if FILLING not in arguments.steps:
        filled = await _filled(database)
        if arguments.events != [filled]:
            raise SystemExit(f"There are {filled:,} events, not as many as asked for.")
        measured[STARTING] = await first_answer(database, columns, filled, began)
    for event_count in sorted(arguments.events):
        if FILLING in arguments.steps:
            await Filling(database, columns).fill_up_to(event_count)
        if REPORTS in arguments.steps:
            found = await measure_reports(database, columns, event_count)
            measured.setdefault(REPORTS, {})[str(event_count)] = found
    await columns.close()
    await database.dispose()


def _tables(measured: dict[str, Any]) -> Iterator[str]:
    by_count = {int(number): found for number, found in measured.get(REPORTS, {}).items()}
    if by_count:
        whole = max(by_count)
        heads = [f"{number:,}: median | p99" for number in sorted(by_count)]
        yield ""
        yield "Milliseconds after so many events; a report is on 30 days if it doesn't say."
        yield ""
        yield f"| report | {' | '.join(heads)} | plain SQL, {whole:,} | columns, {whole:,} |"
        yield "| --- |" + " --- |" * (2 * len(heads) + 2)
        for name, (*_, sql, limit) in by_count[whole].items():
            took = [value for number in sorted(by_count) for value in by_count[number][name][:2]]
            cells = ["" if value is None else f"{value:.1f}" for value in (*took, sql, limit)]
            yield f"| {name} | {' | '.join(cells)} |"
    for sentence in [*measured.get(FOLLOWING, []), *filter(None, [measured.get(STARTING)])]:
        yield ""
        yield sentence


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
    parser.add_argument(
        "--followed", type=int, default=_FOLLOWED_EVENTS, help="from the beginning (200000)"
    )
    parser.add_argument("--mariadb", action="store_true", help="not SQLite, but a private MariaDB")
    parser.add_argument("--directory", type=Path, help="keeps what is filled and measured there")
    parser.add_argument(
        "--only", dest="steps", action="append", choices=STEPS, help="not all of the steps"
    )
    parser.add_argument("--write", action="store_true", help="the tables into RESULTS.md")
    arguments = parser.parse_args()
    arguments.steps = arguments.steps or STEPS
    collect_less()
    with tempfile.TemporaryDirectory() as name:
        directory = arguments.directory or Path(name)
        directory.mkdir(exist_ok=True)
        table = asyncio.run(measure(arguments, directory))
    sys.stdout.write(f"{table}\n")
    if arguments.write:
        section = f"<!-- query -->\n{table}\n<!-- /query -->"
        _RESULTS.write_text(_SECTION.sub(lambda _: section, _RESULTS.read_text()))


if __name__ == "__main__":
    main()
