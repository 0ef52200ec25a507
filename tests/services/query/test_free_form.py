"""Trends, carts, attribution and orders in any `EventColumns`: as going through all by hand."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.digest import digest_of
from services.query.columns import (
    Attribution,
    CartState,
    CartSums,
    Dimension,
    Occurrences,
    Property,
    Scope,
    Step,
    Touch,
    TrendRow,
    Visitors,
)
from services.query.duck import DuckColumns
from shoptrail.ingest.v1.event_pb2 import Event
from tests.services.query import naive
from tests.services.query.fake_ingest import NOON, TRACK
from tests.services.query.naive import Told
from tests.services.query.test_columns import (
    HOUR,
    STEPS,
    Log,
    added,
    by_person,
    dimensions,
    does,
    many,
    scopes,
    taken,
    value_of,
)
from tests.services.query.test_figures import logs

MOVES = ["Product Added", "Product Removed", "Checkout Started", "Order Completed"]
UNIT = 10_000


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    columns = DuckColumns()
    yield Log(columns)
    await columns.close()


def periods_of(scope: Scope) -> list[datetime]:
    count = (scope.end_time - scope.start_time) // HOUR
    return [scope.start_time + number * HOUR for number in range(count + 1)]


@given(pages=logs(), scope_of=scopes)
@many
async def test_visitors_are_people_by_period_in_all_and_before(
    log: Log, pages: list[list[Event]], scope_of: Callable[[str], Scope]
) -> None:
    store_uid, told = await added(log, pages)
    scope = scope_of(store_uid)
    boundaries = periods_of(scope)
    before = scope.start_time - 2 * HOUR
    names = naive.people(told)

    def people_between(start: datetime, end: datetime) -> int:
        return len({name for one, name in zip(told, names, strict=True) if start <= one.time < end})

    visitors = await log.columns.visitors(store_uid, boundaries, previous_start=before)

    assert visitors == Visitors(
        [people_between(*period) for period in pairwise(boundaries)],
        total=people_between(scope.start_time, scope.end_time),
        previous=people_between(before, scope.start_time),
    )


@given(
    pages=logs(),
    scope_of=scopes,
    step=st.none() | st.sampled_from(STEPS),
    of=st.none() | dimensions | st.just(Dimension.TRUST) | st.just(Dimension.BROWSER),
)
@many
async def test_a_trend_counts_events_and_people_by_value_and_period(
    log: Log,
    pages: list[list[Event]],
    scope_of: Callable[[str], Scope],
    step: Step | None,
    of: Dimension | Property | None,
) -> None:
    store_uid, told = await added(log, pages)
    scope = scope_of(store_uid)
    boundaries = periods_of(scope)
    before = scope.start_time - (scope.end_time - scope.start_time)
    ever = Scope(store_uid, before, scope.end_time, scope.filters)
    seen: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for person, done in by_person(told).items():
        for one in done:
            if taken(one, ever) and does(one, step):
                value = looked_at(one, of)
                period = (one.time - scope.start_time) // HOUR
                seen[value, max(period, -1)].append(person)
                if period >= 0:
                    seen[value, -2].append(person)

    def occurrences(value: str, period: int) -> Occurrences:
        people = seen.get((value, period), [])
        return Occurrences(len(people), len(set(people)))

    values = {value for value, period in seen if period == -2} | (set() if of else {""})
    expected = [
        TrendRow(
            value,
            occurrences(value, -2),
            occurrences(value, -1),
            [occurrences(value, period) for period in range(len(boundaries) - 1)],
        )
        for value in values
    ]

    rows = await log.columns.trend(
        scope, boundaries, previous_start=before, step=step, of=of, limit=1000
    )

    # Without a breakdown there is a row, unless there is nothing at all.
    assert rows or not seen or of is not None
    assert rows == sorted(
        (row for row in expected if row.total.event_count or rows),
        key=lambda row: (-row.total.event_count, row.value),
    )


def looked_at(one: Told, of: Dimension | Property | None) -> str:
    if of is None:
        return ""
    if of is Dimension.TRUST:
        return ["claimed", "confirmed"][one.trust - 1]
    if of is Dimension.BROWSER:
        return "Firefox" if one.trust == 2 else ""
    return value_of(one, of)


@given(
    pages=logs(),
    scope_of=scopes,
    idle=st.integers(1, 200).map(lambda minutes: timedelta(minutes=minutes)),
    wait=st.integers(0, 300),
    breakdown=st.none() | dimensions,
)
@many
async def test_a_cart_is_what_a_person_adds_between_two_orders(
    log: Log,
    pages: list[list[Event]],
    scope_of: Callable[[str], Scope],
    idle: timedelta,
    wait: int,
    breakdown: Dimension | Property | None,
) -> None:
    store_uid, told = await added(log, pages)
    scope = scope_of(store_uid)
    boundaries = periods_of(scope)
    before = scope.start_time - (scope.end_time - scope.start_time)
    now = NOON + 7 * HOUR + timedelta(minutes=wait)
    ever = Scope(store_uid, before, scope.end_time, scope.filters)
    periods: defaultdict[int, list[tuple[CartState, Counter[str]]]] = defaultdict(list)
    values: defaultdict[str, list[tuple[CartState, Counter[str]]]] = defaultdict(list)
    for done in by_person(told).values():
        for cart in carts_of(done):
            if taken(cart[0], ever):
                became = state_of(cart, idle, now), worth_of(cart)
                period = max((cart[0].time - scope.start_time) // HOUR, -1)
                periods[period].append(became)
                if period >= 0:
                    values[value_of(cart[0], breakdown) if breakdown else ""].append(became)

    report = await log.columns.carts(
        scope,
        boundaries,
        previous_start=before,
        now=now,
        idle=idle,
        breakdown=breakdown,
        limit=100,
    )

    assert [plain(sums) for sums in report.periods] == [
        summed(periods[period]) for period in range(len(boundaries) - 1)
    ]
    assert plain(report.previous) == summed(periods[-1])
    assert {value: plain(sums) for value, sums in report.rows} == {
        value: summed(became) for value, became in values.items()
    }


def carts_of(done: Sequence[Told]) -> list[list[Told]]:
    carts: list[list[Told]] = []
    cart: list[Told] | None = None
    for one in done:
        if one.event.type != TRACK or one.event.name not in MOVES:
            continue
        if cart is None and one.does("Product Added"):
            cart = []
            carts.append(cart)
        if cart is not None:
            cart.append(one)
        if one.does("Order Completed"):
            cart = None
    return carts


def state_of(cart: Sequence[Told], idle: timedelta, now: datetime) -> CartState:
    ordered = cart[-1].does("Order Completed")
    times = [one.time for one in cart] + ([] if ordered else [now])
    paused = any(later - time > idle for time, later in pairwise(times))
    if ordered:
        return CartState.RECOVERED if paused else CartState.ORDERED
    pieces = sum(sign_of(one) * one.properties.get("quantity", 1) for one in cart)
    if pieces <= 0:
        return CartState.EMPTIED
    return CartState.ABANDONED if paused else CartState.OPEN


def worth_of(cart: Sequence[Told]) -> Counter[str]:
    worth: Counter[str] = Counter()
    for one in cart:
        amount = Decimal(one.properties.get("price", 0)) * one.properties.get("quantity", 1)
        worth[one.properties.get("currency", "XXX")] += sign_of(one) * int(amount * UNIT)
    return worth


def sign_of(one: Told) -> int:
    return one.does("Product Added") - one.does("Product Removed")


def summed(
    carts: Sequence[tuple[CartState, Counter[str]]],
) -> tuple[dict[CartState, int], dict[tuple[CartState, str], int]]:
    values: Counter[tuple[CartState, str]] = Counter()
    for state, worth in carts:
        for currency, amount in worth.items():
            values[state, currency] += max(amount, 0)
    return dict(Counter(state for state, _ in carts)), {
        key: amount for key, amount in values.items() if amount
    }


def plain(sums: CartSums) -> tuple[dict[CartState, int], dict[tuple[CartState, str], int]]:
    return dict(sums.counts), dict(sums.values)


@given(
    pages=logs(),
    scope_of=scopes,
    touch=st.sampled_from(Touch),
    of=dimensions,
    minutes=st.integers(1, 400),
    trusts=st.sampled_from([[1, 2], [1], [2]]),
)
@many
async def test_an_order_is_put_down_to_what_its_person_did_before(
    log: Log,
    pages: list[list[Event]],
    scope_of: Callable[[str], Scope],
    touch: Touch,
    of: Dimension | Property,
    minutes: int,
    trusts: list[int],
) -> None:
    store_uid, told = await added(log, pages)
    scope, lookback = scope_of(store_uid), timedelta(minutes=minutes)
    touching = Scope(store_uid, NOON, NOON + 8 * HOUR, scope.filters)
    done_by, whose = by_person(told), buyers(told)
    sums: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for sale, net in sales(told):
        if not scope.start_time <= sale.time < scope.end_time or sale.trust not in trusts:
            continue
        touches = [
            value_of(one, of)
            for one in done_by.get(whose[sale.order_id], [])
            if sale.time - lookback <= one.time <= sale.time
            and taken(one, touching)
            and value_of(one, of)
        ]
        value = (touches or [""])[0 if touch is Touch.FIRST else -1]
        of_value = sums[value, sale.currency]
        of_value[0] += 1
        of_value[1] += int(sale.amount * UNIT)
        of_value[2] += int(net * UNIT)

    found = await log.columns.attribute(
        scope, touch, of, lookback=lookback, trusts=trusts, limit=1000
    )

    assert sorted(found, key=lambda one: (one.value, one.currency)) == [
        Attribution(value, currency, *of_value)
        for (value, currency), of_value in sorted(sums.items())
    ]


def sales(told: Sequence[Told]) -> list[tuple[naive.LedgerLine, Decimal]]:
    """The sales, with what was left of each."""
    lines, _ = naive.ledger(told)
    left: defaultdict[str, Decimal] = defaultdict(Decimal)
    for line in lines:
        left[line.order_id] += line.amount if line.what == "sale" else -line.amount
    return [(line, left[line.order_id]) for line in lines if line.what == "sale"]


def buyers(told: Sequence[Told]) -> dict[str, str]:
    """Who made each order: whom the first to say so names, the most trusted first."""
    name_of = naive.names_of(told)
    found = {}
    for order_id, statements in naive.statements_of_orders(told).items():
        ids = {"user_id": "", "anonymous_id": ""}
        for trust in (2, 1):
            completions = [
                one for one in statements if one.does("Order Completed") and one.trust == trust
            ]
            for name in ids if completions else ():
                ids[name] = ids[name] or getattr(completions[0].event, name)
        found[order_id] = name_of(ids["user_id"], ids["anonymous_id"])
    return found


@given(pages=logs(), scope_of=scopes, asked=st.sets(st.sampled_from(["o1", "o2", "o3", "o4"])))
@many
async def test_orders_of_a_range_and_those_asked_for_are_those_of_the_ledger(
    log: Log, pages: list[list[Event]], scope_of: Callable[[str], Scope], asked: set[str]
) -> None:
    store_uid, told = await added(log, pages)
    scope = scope_of(store_uid)
    statements = naive.statements_of_orders(told)
    expected = {}
    for sale, net in sales(told):
        if scope.start_time <= sale.time < scope.end_time or sale.order_id in asked:
            times = Counter(
                one.trust for one in statements[sale.order_id] if one.does("Order Completed")
            )
            expected[sale.order_id] = (
                *(sale.time, sale.trust, sale.currency),
                *(int(sale.amount * UNIT), int((sale.amount - net) * UNIT)),
                max(times.values()),
                "Firefox" if 2 in times else "",
            )

    found = await log.columns.list_orders(scope, [digest_of(order_id) for order_id in asked])

    assert {
        one.order_id: (
            *(one.time, one.trust, one.currency, one.gross, one.taken),
            *(one.told_count, one.browser),
        )
        for one in found
    } == expected
