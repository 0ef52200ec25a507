"""Whatever happens to the log on its way, the figures are those of all events together."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, or_, select, true

from common.uid import new_uid
from services.query.figures import Memory, add_facts
from services.query.orders import Order
from services.query.projection import fold
from services.query.tables import FIGURES
from shoptrail.ingest.v1.event_pb2 import Event
from shoptrail.query.v1 import query_pb2
from shoptrail.query.v1.report_pb2 import (
    Interval,
    Measure,
    RevenueFigures,
    SessionBreakdown,
    Trust,
)
from tests.conftest import key_metadata
from tests.services.query import naive
from tests.services.query.fake_ingest import ALIAS, IDENTIFY, NOON, PAGE, TRACK, happened, timestamp
from tests.services.query.naive import Told
from tests.services.query.scene import Scene

HOUR = timedelta(hours=1)
REBUILT = 2
PERIODS = [NOON + number * HOUR for number in range(8)]

browsers = st.sampled_from(["", "b1", "b2", "b3"])
users = st.sampled_from(["", "u1", "u2", "u3"])
times = st.integers(0, 7 * 60 - 1).map(lambda minute: NOON + timedelta(minutes=minute))
amounts = st.integers(0, 9999).map(lambda cents: cents / 100)
products = st.lists(
    st.fixed_dictionaries(
        {"product_id": st.sampled_from(["p1", "p2"]), "price": amounts},
        optional={"quantity": st.integers(0, 5), "name": st.sampled_from(["Tea", "Cup"])},
    ),
    max_size=3,
)
orders = st.fixed_dictionaries(
    {"order_id": st.sampled_from(["o1", "o2", "o3"]), "total": amounts, "products": products},
    optional={"currency": st.sampled_from(["EUR", "USD"])},
)
changes = st.fixed_dictionaries(
    {"order_id": st.sampled_from(["o1", "o2", "o3"])},
    optional={
        "total": amounts,
        "currency": st.sampled_from(["EUR", "USD"]),
        "refund_id": st.sampled_from(["r1", "r2"]),
    },
)
viewed = st.fixed_dictionaries({"product_id": st.sampled_from(["p1", "p2"]), "price": amounts})
carted = st.fixed_dictionaries(
    {"product_id": st.sampled_from(["p1", "p2"]), "price": amounts},
    optional={"quantity": st.integers(0, 3), "currency": st.sampled_from(["EUR", "USD"])},
)
contexts = st.fixed_dictionaries(
    {"page": st.fixed_dictionaries({"path": st.sampled_from(["/", "/tea", "/cart"])})},
    optional={
        "campaign": st.fixed_dictionaries(
            {"source": st.just("news"), "name": st.sampled_from(["spring", "summer"])}
        )
    },
)


@st.composite
def happenings(draw: st.DrawFn) -> Event:
    """Something that a shop's visitors do, or its server tells of."""
    kind = draw(st.sampled_from([TRACK, TRACK, TRACK, PAGE, PAGE, IDENTIFY, ALIAS]))
    browser, user = draw(browsers), draw(users)
    words: dict[str, Any] = {"context": draw(contexts)}
    name = ""
    if kind == TRACK:
        name = draw(
            st.sampled_from(
                [
                    "Product Viewed",
                    "Product Added",
                    "Product Added",
                    "Product Removed",
                    "Checkout Started",
                    "Order Completed",
                    "Order Completed",
                    "Order Updated",
                    "Order Refunded",
                    "Order Cancelled",
                    "page",
                ]
            )
        )
        of_name = {
            "Order Completed": orders,
            "Product Viewed": viewed,
            "Product Added": carted,
            "Product Removed": carted,
        }
        words["properties"] = draw(of_name.get(name, changes))
    if kind == IDENTIFY:
        browser, user = browser or "b1", user or "u1"
    if kind == ALIAS:
        words["previousId"] = draw(st.sampled_from(["u1", "u2", "u3", "b1", "b2"]))
        user = user or "u1"
    if not browser and not user:
        browser = "b1"
    event = happened("", name, at=draw(times), of=kind, payload=json.dumps(words).encode())
    event.anonymous_id, event.user_id = browser, user
    event.enrichment = draw(
        st.sampled_from([b"", b"", b'{"confirmed":true,"browser":{"name":"Firefox"}}'])
    )
    return event


@st.composite
def logs(draw: st.DrawFn) -> list[list[Event]]:
    """Events in any sequence, and in pages of any length."""
    least = draw(st.sampled_from([1, 10, 30]))
    events = draw(st.lists(happenings(), min_size=least, max_size=50))
    cuts = sorted(draw(st.sets(st.integers(1, len(events)), max_size=6)) | {len(events)})
    pages = []
    start = 0
    for cut in cuts:
        pages.append(events[start:cut])
        start = cut
    return pages


@given(pages=logs(), restarts=st.sets(st.integers(0, 6)))
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_every_report_gives_what_all_events_together_give(
    scene: Scene, pages: list[list[Event]], restarts: set[int]
) -> None:
    scene.store_uid = new_uid("sto")
    memory = Memory()
    before = scene.position
    for number, page in enumerate(pages):
        for event in page:
            event.store_uid = scene.store_uid
        if number in restarts:
            memory = Memory()  # Who starts anew remembers nothing.
        await scene.project(*page, memory=memory)

    # Made anew, all at once and in another sequence, they are the same to the last row.
    async with scene.database.begin() as transaction:
        again = fold([event for page in pages for event in page], shard=0, after_position=before)
        await add_facts(transaction, REBUILT, again.facts[::-1])
    assert await figures_in(scene, 1) == await figures_in(scene, REBUILT)
    await assert_exact(scene, naive.read(event for page in pages for event in page))


async def figures_in(scene: Scene, generation: int) -> dict[str, list[tuple[Any, ...]]]:
    """The store's rows, but for sums of nothing."""
    found = {}
    async with scene.database.read() as snapshot:
        for table in FIGURES:
            kept = [column for column in table.c if column.name != "generation"]
            numbers = [
                column
                for column in table.c
                if not column.primary_key and isinstance(column.type, BigInteger)
            ]
            of_store = table.c.generation == generation, table.c.store_uid == scene.store_uid
            something = or_(*(column != 0 for column in numbers)) if numbers else true()
            rows = await snapshot.execute(
                select(*kept).where(*of_store, something).order_by(*table.primary_key.columns)
            )
            # What was told of an order is the same in whatever sequence it is written down.
            found[table.name] = [
                (*row[:-1], msgspec.msgpack.decode(row.told, type=Order))
                if table.name == "orders"
                else tuple(row)
                for row in rows
            ]
    return found


async def test_the_sequence_in_which_events_arrive_changes_nothing(scene: Scene) -> None:
    """A few that came late, one by one, each as inconvenient as can be."""
    minutes = [0, 100, 50, 25, 75, 12, 90, 160, 131]
    campaigns = {50: "spring", 75: "summer"}
    for minute in minutes:
        context: dict[str, Any] = {"page": {"path": f"/{minute}"}}
        if minute in campaigns:
            context["campaign"] = {"source": "news", "name": campaigns[minute]}
        event = happened(
            scene.store_uid,
            at=NOON + timedelta(minutes=minute),
            of=PAGE,
            payload=json.dumps({"context": context}).encode(),
        )
        await scene.project(event)
        seen = minutes[: minutes.index(minute) + 1]
        report = await ask_sessions(scene, SessionBreakdown.SESSION_BREAKDOWN_ENTRY_PAGE)
        assert sum(row.figures.page_count for row in report.rows) == len(seen)

    names = sorted(row.name for row in report.rows)
    assert names == ["/0", "/131", "/50", "/75"]


async def assert_exact(scene: Scene, told: Sequence[Told]) -> None:
    """Every report is what the plainest working-out gives."""
    await assert_counts(scene, told)
    await assert_visitors(scene, told)
    await assert_sessions(scene, told)
    await assert_revenue(scene, told)
    await assert_products(scene, told)


async def assert_counts(scene: Scene, told: Sequence[Told]) -> None:
    report = await scene.count(
        query_pb2.CountEventsRequest(
            start_time=timestamp(NOON), end_time=timestamp(PERIODS[-1]), interval=_HOUR
        )
    )
    assert {
        (series.type, series.name): series.total_count for series in report.series
    } == naive.counts(told)
    measured = await scene.query.CountMeasure(
        query_pb2.CountMeasureRequest(
            **_range_of(scene), measure=Measure.MEASURE_PAGE_VIEWS_BY_PATH
        ),
        **_call(scene),
    )
    assert {series.name: series.total_count for series in measured.series} == Counter(
        naive.path_of(one) for one in told if one.event.type == PAGE
    )


async def assert_visitors(scene: Scene, told: Sequence[Told]) -> None:
    report = await scene.query.CountVisitors(
        query_pb2.CountVisitorsRequest(**_range_of(scene)), **_call(scene)
    )
    seen: defaultdict[datetime, set[str]] = defaultdict(set)
    names = naive.people(told)
    for one, name in zip(told, names, strict=True):
        seen[_period_of(one.time)].add(name)
    assert dict(zip(PERIODS, report.counts, strict=False)) == {
        period: len(seen[period]) for period in PERIODS[:-1]
    }
    assert report.visitor_count == len(set(names))


async def assert_sessions(scene: Scene, told: Sequence[Told]) -> None:
    report = await ask_sessions(scene, SessionBreakdown.SESSION_BREAKDOWN_CAMPAIGN)
    sessions = naive.sessions(told)
    begun = Counter(_period_of(session[0].time) for session in sessions)
    assert [period.session_count for period in report.periods] == [
        begun[period] for period in PERIODS[:-1]
    ]
    assert report.total.page_count == sum(
        one.event.type == PAGE for session in sessions for one in session
    )
    assert report.total.bounce_count == sum(
        sum(one.event.type in (PAGE, TRACK) for one in session) <= 1 for session in sessions
    )
    assert report.total.duration.ToTimedelta() == sum(
        (session[-1].time - session[0].time for session in sessions), timedelta()
    )
    assert {row.name: row.figures.session_count for row in report.rows} == Counter(
        naive.campaign_of(session[0]) for session in sessions
    )
    for breakdown, index in (
        (SessionBreakdown.SESSION_BREAKDOWN_ENTRY_PAGE, 0),
        (SessionBreakdown.SESSION_BREAKDOWN_EXIT_PAGE, -1),
    ):
        report = await ask_sessions(scene, breakdown)
        pages = [
            [naive.path_of(one) for one in session if one.event.type == PAGE] or [""]
            for session in sessions
        ]
        assert {row.name: row.figures.session_count for row in report.rows} == Counter(
            seen[index] for seen in pages
        )


async def assert_revenue(scene: Scene, told: Sequence[Told]) -> None:
    lines, _ = naive.ledger(told)
    await assert_ledger(scene, lines, Trust.TRUST_UNSPECIFIED)
    for trust in Trust.TRUST_CLAIMED, Trust.TRUST_CONFIRMED:
        await assert_ledger(scene, [line for line in lines if line.trust == trust], trust)


async def assert_ledger(
    scene: Scene, lines: Sequence[naive.LedgerLine], trust: Trust.ValueType
) -> None:
    report = await scene.query.ReportRevenue(
        query_pb2.ReportRevenueRequest(**_range_of(scene), trust=trust), **_call(scene)
    )
    found = {
        (revenue.currency, period): _sums_of(figures)
        for revenue in report.currencies
        for period, figures in zip(PERIODS, revenue.periods, strict=False)
    }
    expected: dict[tuple[str, datetime], list[Decimal]] = {}
    for line in lines:
        sums = expected.setdefault((line.currency, _period_of(line.time)), [Decimal(0)] * 6)
        place = ["sale", "refund", "cancellation"].index(line.what) * 2
        sums[place] += 1
        sums[place + 1] += line.amount
    assert {key: sums for key, sums in found.items() if any(sums)} == expected


async def assert_products(scene: Scene, told: Sequence[Told]) -> None:
    report = await scene.query.ReportProducts(
        query_pb2.ReportProductsRequest(**_range_of(scene)), **_call(scene)
    )
    _, bought = naive.ledger(told)
    expected: defaultdict[str, list[Decimal]] = defaultdict(lambda: [Decimal(0)] * 3)
    for lines in bought.values():
        for product_id in {line["product_id"] for line in lines}:
            of_product = [line for line in lines if line["product_id"] == product_id]
            sums = expected[product_id]
            sums[0] += 1
            sums[1] += sum(line.get("quantity", 1) for line in of_product)
            sums[2] += sum(Decimal(line["price"]) * line.get("quantity", 1) for line in of_product)
    found = {
        product.product_id: [
            Decimal(product.order_count),
            Decimal(product.quantity),
            sum((Decimal(money.amount) for money in product.revenue), Decimal(0)),
        ]
        for product in report.products
    }
    assert found == expected
    for product in report.products:
        views = sum(
            one.does("Product Viewed") and one.properties["product_id"] == product.product_id
            for one in told
        )
        assert product.view_count == views


async def ask_sessions(
    scene: Scene, breakdown: SessionBreakdown.ValueType
) -> query_pb2.ReportSessionsResponse:
    return await scene.query.ReportSessions(
        query_pb2.ReportSessionsRequest(**_range_of(scene), breakdown=breakdown), **_call(scene)
    )


_HOUR = Interval.INTERVAL_HOUR


def _range_of(scene: Scene) -> dict[str, Any]:
    return {
        "store_uid": scene.store_uid,
        "start_time": timestamp(NOON),
        "end_time": timestamp(PERIODS[-1]),
        "interval": _HOUR,
    }


def _call(scene: Scene) -> dict[str, Any]:
    return {
        "timeout": 10,
        "metadata": key_metadata("reports:read", store_uid=scene.store_uid),
    }


def _period_of(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _sums_of(figures: RevenueFigures) -> list[Decimal]:
    return [
        Decimal(figures.order_count),
        Decimal(figures.gross),
        Decimal(figures.refund_count),
        Decimal(figures.refunded),
        Decimal(figures.cancellation_count),
        Decimal(figures.cancelled),
    ]
