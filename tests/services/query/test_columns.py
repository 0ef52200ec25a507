"""What any `EventColumns` must give: exactly what going through all events by hand gives."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.db import database_now
from common.uid import new_uid
from services.query.change_repository import list_copies
from services.query.column_keeper import ColumnKeeper
from services.query.columns import (
    BreakdownRow,
    Cohort,
    Dimension,
    EventColumns,
    Filter,
    FunnelRow,
    Property,
    Scope,
    Step,
)
from services.query.duck import DuckColumns
from services.query.freshness import Cursor
from services.query.projection import fold
from shoptrail.ingest.v1.event_pb2 import Event
from shoptrail.query.v1 import query_pb2 as pb
from tests.conftest import key_metadata
from tests.services.query import naive
from tests.services.query.fake_ingest import NOON, PAGE, TRACK, happened, timestamp
from tests.services.query.naive import Told
from tests.services.query.scene import Scene, violations_of
from tests.services.query.test_figures import logs
from tests.services.query.test_rebuild import POISON

HOUR = timedelta(hours=1)
STEPS = [
    Step(TRACK, "Product Viewed"),
    Step(TRACK, "Product Added"),
    Step(TRACK, "Order Completed"),
    Step(PAGE, "page"),
    Step(PAGE, "page", page="/cart"),
    Step(TRACK, ""),
]
DIMENSIONS: list[Dimension | Property] = [
    Dimension.PAGE,
    Dimension.CAMPAIGN,
    Property(("product_id",)),
    Property(("price",)),
]


class Log:
    """Adds events to columns as the log would bring them."""

    def __init__(self, columns: EventColumns) -> None:
        self.columns = columns
        self.position = 0

    async def add(self, *events: Event) -> None:
        for offset, event in enumerate(events, start=1):
            event.position = self.position + offset
        projection = fold(events, shard=0, after_position=self.position)
        self.position = projection.position
        await self.columns.add(Cursor(0, self.position, None), projection.facts)


@pytest.fixture(params=["memory", "file"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Log]:
    path = tmp_path / "columns.duckdb" if request.param == "file" else None
    columns = DuckColumns(path)
    yield Log(columns)
    await columns.close()


async def added(log: Log, pages: Sequence[Sequence[Event]]) -> tuple[str, list[Told]]:
    """A store that has the events, and what there is of them."""
    store_uid = new_uid("sto")
    for page in pages:
        for event in page:
            event.store_uid = store_uid
        await log.add(*page)
    return store_uid, naive.read(event for page in pages for event in page)


def value_of(one: Told, of: Dimension | Property) -> str:
    if isinstance(of, Property):
        found = one.properties.get(of.path[0])
        return "" if found is None else str(found)
    return {Dimension.PAGE: naive.path_of, Dimension.CAMPAIGN: naive.campaign_of}[of](one)


def does(one: Told, step: Step | None) -> bool:
    if step is None:
        return True
    of_name = step.type != TRACK or step.name in ("", one.event.name)
    return one.event.type == step.type and of_name and step.page in ("", naive.path_of(one))


def taken(one: Told, scope: Scope) -> bool:
    in_time = scope.start_time <= one.time < scope.end_time
    return in_time and all(value_of(one, each.of) == each.text for each in scope.filters)


def by_person(told: Sequence[Told]) -> dict[str, list[Told]]:
    found: defaultdict[str, list[Told]] = defaultdict(list)
    for one, person in zip(told, naive.people(told), strict=True):
        found[person].append(one)
    return found


def furthest(events: list[Told], steps: Sequence[Step], window: timedelta) -> int:
    """How many of the steps were done in the best attempt."""
    best = 0
    for index, first in enumerate(events):
        if not does(first, steps[0]):
            continue
        reached = 1
        for one in events[index + 1 :]:
            if one.time - first.time > window or reached == len(steps):
                break
            reached += does(one, steps[reached])
        best = max(best, reached)
    return best


dimensions = st.sampled_from(DIMENSIONS)
scopes: st.SearchStrategy[Callable[[str], Scope]] = st.builds(
    lambda start, hours, filters: (
        lambda store_uid: Scope(
            store_uid, NOON + start * HOUR, NOON + (start + hours) * HOUR, filters
        )
    ),
    st.integers(0, 3),
    st.integers(1, 7),
    st.lists(
        st.builds(Filter, dimensions, st.sampled_from(["/", "/tea", "p1", "news /  / spring", ""])),
        max_size=1,
    ),
)
many = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@given(
    pages=logs(),
    scope_of=scopes,
    steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=4),
    minutes=st.integers(1, 300),
    breakdown=st.none() | dimensions,
)
@many
async def test_a_funnel_counts_the_best_attempt_of_each_person(
    log: Log,
    pages: list[list[Event]],
    scope_of: Callable[[str], Scope],
    steps: list[Step],
    minutes: int,
    breakdown: Dimension | Property | None,
) -> None:
    store_uid, told = await added(log, pages)
    scope, window = scope_of(store_uid), timedelta(minutes=minutes)
    expected: defaultdict[str, list[int]] = defaultdict(lambda: [0] * len(steps))
    for events in by_person(told).values():
        seen = [one for one in events if taken(one, scope)]
        firsts = [one for one in seen if does(one, steps[0])]
        if firsts:
            value = value_of(firsts[0], breakdown) if breakdown else ""
            for number in range(furthest(seen, steps, window)):
                expected[value][number] += 1

    rows = await log.columns.funnel(scope, steps, window=window, breakdown=breakdown, limit=100)

    assert sorted(rows, key=lambda row: row.value) == [
        FunnelRow(value, tuple(counts)) for value, counts in sorted(expected.items())
    ]


@given(
    pages=logs(),
    scope_of=scopes,
    first=st.none() | st.sampled_from(STEPS),
    again=st.none() | st.sampled_from(STEPS),
)
@many
async def test_people_return_by_what_they_do_after_their_first_time(
    log: Log,
    pages: list[list[Event]],
    scope_of: Callable[[str], Scope],
    first: Step | None,
    again: Step | None,
) -> None:
    store_uid, told = await added(log, pages)
    scope = scope_of(store_uid)
    periods = (scope.end_time - scope.start_time) // HOUR
    boundaries = [scope.start_time + number * HOUR for number in range(periods + 1)]
    ever = Scope(store_uid, NOON, scope.end_time, scope.filters)
    sizes: Counter[int] = Counter()
    returns: Counter[tuple[int, int]] = Counter()
    for events in by_person(told).values():
        seen = [one for one in events if taken(one, ever)]
        begun = next((index for index, one in enumerate(seen) if does(one, first)), None)
        if begun is None or seen[begun].time < scope.start_time:
            continue
        cohort = (seen[begun].time - scope.start_time) // HOUR
        sizes[cohort] += 1
        later = {
            (one.time - scope.start_time) // HOUR - cohort
            for one in seen[begun + 1 :]
            if does(one, again)
        }
        returns.update((cohort, periods_later) for periods_later in later)

    found = await log.columns.retention(scope, boundaries, first=first, again=again)

    assert found == [
        Cohort(sizes[cohort], tuple(returns[cohort, later] for later in range(periods - cohort)))
        for cohort in range(periods)
    ]


@given(pages=logs(), scope_of=scopes, step=st.none() | st.sampled_from(STEPS), of=dimensions)
@many
async def test_a_breakdown_counts_events_and_people_by_value(
    log: Log,
    pages: list[list[Event]],
    scope_of: Callable[[str], Scope],
    step: Step | None,
    of: Dimension | Property,
) -> None:
    store_uid, told = await added(log, pages)
    scope = scope_of(store_uid)
    events: Counter[str] = Counter()
    people: defaultdict[str, set[str]] = defaultdict(set)
    for person, done in by_person(told).items():
        for one in done:
            if taken(one, scope) and does(one, step):
                events[value_of(one, of)] += 1
                people[value_of(one, of)].add(person)

    rows = await log.columns.break_down(scope, step, of, limit=1000)

    assert rows == sorted(
        (BreakdownRow(value, events[value], len(people[value])) for value in events),
        key=lambda row: (-row.event_count, row.value),
    )


async def test_no_payload_and_no_name_is_too_odd(log: Log) -> None:
    store_uid = new_uid("sto")
    names = ["Product Viewed", "\0", "'; DROP TABLE events_1; --", "🛒" * 200, "\\", '"']
    await log.add(
        *(happened(store_uid, name, payload=payload) for name in names for payload in POISON)
    )
    scope = Scope(store_uid, NOON, NOON + HOUR)

    for name in names:
        rows = await log.columns.funnel(
            scope,
            [Step(TRACK, name)],
            window=HOUR,
            breakdown=Property(("a'b", "~/c")),
            limit=10,
        )
        assert [row.person_counts for row in rows] == [(1,)]
    [row] = await log.columns.break_down(scope, None, Property(("nothing",)), limit=10)
    assert row.event_count == len(names) * len(POISON)


async def test_columns_in_a_file_go_on_where_they_were(tmp_path: Path) -> None:
    columns = DuckColumns(tmp_path / "columns.duckdb")
    store_uid = new_uid("sto")
    await Log(columns).add(happened(store_uid), happened(store_uid))
    await columns.close()

    again = DuckColumns(tmp_path / "columns.duckdb")
    [cursor] = await again.cursors()
    rows = await again.break_down(
        Scope(store_uid, NOON, NOON + HOUR), None, Dimension.PAGE, limit=1
    )
    await again.close()

    assert (cursor.position, rows[0].event_count) == (2, 2)


async def test_a_file_that_cannot_be_read_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "columns.duckdb"
    path.write_bytes(b"no database " * 1000)

    columns = DuckColumns(path)
    assert await columns.cursors() == []
    await columns.close()


async def test_a_file_of_another_version_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "columns.duckdb"
    with duckdb.connect(str(path)) as other:
        other.execute("CREATE TABLE events_0 AS SELECT 'planted words' AS note")

    await DuckColumns(path).close()

    assert b"planted words" not in path.read_bytes()


async def test_a_file_that_another_process_has_open_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "columns.duckdb"
    holding = f"import duckdb; held = duckdb.connect({str(path)!r}); print(flush=True); input()"
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", holding, stdin=PIPE, stdout=PIPE
    )
    assert holder.stdout is not None
    await holder.stdout.readline()

    with pytest.raises(duckdb.IOException):
        DuckColumns(path)
    await holder.communicate(b"\n")

    assert path.exists()


async def test_the_keeper_begins_anew_with_columns_that_know_more_than_the_listing(
    scene: Scene,
) -> None:
    await scene.project(happened(scene.store_uid))
    await Log(scene.columns).add(*(happened(new_uid("sto")) for _ in range(2)))

    keeper = ColumnKeeper(scene.database, scene.columns)
    await keeper.start()
    assert await scene.columns.cursors() == []
    while await keeper.copy_page():
        pass

    [cursor] = await scene.columns.cursors()
    scope = Scope(scene.store_uid, NOON, NOON + HOUR)
    [row] = await scene.columns.break_down(scope, None, Dimension.PAGE, limit=9)
    assert (cursor.position, row.event_count) == (1, 1)


async def test_the_keeper_copies_each_listed_event_once(scene: Scene) -> None:
    keeper = ColumnKeeper(scene.database, scene.columns)
    for count in (3, 0, 2):
        if count:
            await scene.project(*(happened(scene.store_uid) for _ in range(count)))
        while await keeper.copy_page():
            pass

    [cursor] = await scene.columns.cursors()
    scope = Scope(scene.store_uid, NOON, NOON + HOUR)
    [row] = await scene.columns.break_down(scope, None, Dimension.PAGE, limit=9)
    assert (cursor.position, row.event_count) == (5, 5)
    assert cursor.as_of_time == NOON + timedelta(seconds=1)


async def test_the_keeper_tells_of_itself_before_it_copies_from_a_shard(scene: Scene) -> None:
    await scene.project(happened(scene.store_uid))
    keeper = ColumnKeeper(scene.database, scene.columns)

    await keeper.start()  # What it tells of itself is all that makes an erasure wait for it.

    assert await scene.columns.cursors() == []
    async with scene.database.read() as snapshot:
        copies = await list_copies(snapshot, seen_after=await database_now(snapshot) - HOUR)
    assert [(copy.shard, copy.change_number) for copy in copies] == [(0, 0)]


def asked(scene: Scene) -> dict[str, Any]:
    return {
        "timeout": 10,
        "metadata": key_metadata("reports:read", store_uid=scene.store_uid),
    }


async def test_a_funnel_is_reported_from_page_to_order(scene: Scene) -> None:
    def did(minute: int, name: str, browser: str, **words: Any) -> Event:
        event = happened(
            scene.store_uid,
            name,
            at=NOON + timedelta(minutes=minute),
            of=PAGE if not name else TRACK,
            payload=json.dumps(words).encode(),
        )
        event.anonymous_id, event.user_id = browser, ""
        return event

    tea = {"page": {"path": "/tea"}}
    await scene.project(
        did(0, "", "b1", context=tea),
        did(1, "Product Added", "b1", properties={"color": "red"}),
        did(2, "Order Completed", "b1"),
        did(0, "", "b2", context=tea),
        did(9, "Product Added", "b2"),
        did(8, "Order Completed", "b2"),
        did(0, "", "b3", context={"page": {"path": "/cup"}}),
    )
    await ColumnKeeper(scene.database, scene.columns).copy_page()
    request = pb.ReportFunnelRequest(
        store_uid=scene.store_uid,
        end_time=timestamp(NOON + HOUR),
        steps=["page:/tea", "Product Added", "track:Order Completed"],
    )

    report = await scene.query.ReportFunnel(request, **asked(scene))
    request.window.FromTimedelta(timedelta(minutes=5))
    hurried = await scene.query.ReportFunnel(request, **asked(scene))

    assert [list(row.person_counts) for row in report.rows] == [[2, 2, 1]]
    assert [list(row.person_counts) for row in hurried.rows] == [[2, 1, 1]]
    assert report.as_of.position == 7

    red = await scene.query.BreakDownEvents(
        pb.BreakDownEventsRequest(
            store_uid=scene.store_uid,
            end_time=timestamp(NOON + HOUR),
            breakdown="page",
            filters=["properties.color=red"],
        ),
        **asked(scene),
    )
    assert [(row.value, row.event_count, row.person_count) for row in red.rows] == [("", 1, 1)]

    cohorts = await scene.query.ReportRetention(
        pb.ReportRetentionRequest(
            store_uid=scene.store_uid,
            start_time=timestamp(NOON),
            end_time=timestamp(NOON + HOUR),
            first="page",
            again="Order Completed",
        ),
        **asked(scene),
    )
    assert [(one.person_count, list(one.return_counts)) for one in cohorts.cohorts] == [(3, [2])]


@pytest.mark.parametrize(
    ("method", "request_message", "wrong"),
    [
        (
            "ReportFunnel",
            pb.ReportFunnelRequest(
                store_uid="sto_x",
                steps=["page:"],
                breakdown="shoe",
                filters=["device", "x=y"],
                window=Duration(seconds=-1),
            ),
            ["store_uid", "steps[0]", "breakdown", "filters[0]", "filters[1]", "window"],
        ),
        (
            "ReportFunnel",
            pb.ReportFunnelRequest(
                store_uid="sto_x",
                start_time=timestamp(NOON + HOUR),
                end_time=timestamp(NOON),
                filters=["device=mobile"] * 11,
            ),
            ["store_uid", "start_time", "steps", "filters"],
        ),
        (
            "ReportRetention",
            pb.ReportRetentionRequest(
                store_uid="sto_x", first="track:", again="page:", time_zone="Mars", filters=["="]
            ),
            ["store_uid", "first", "again", "time_zone", "filters[0]"],
        ),
        (
            "BreakDownEvents",
            pb.BreakDownEventsRequest(store_uid="sto_x", event="screen:", limit=-1),
            ["store_uid", "event", "breakdown", "limit"],
        ),
    ],
)
async def test_everything_wrong_with_a_question_is_named_at_once(
    scene: Scene, method: str, request_message: Any, wrong: list[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await getattr(scene.query, method)(
            request_message,
            timeout=5,
            metadata=key_metadata("reports:read", store_uid="sto_x"),
        )

    assert sorted(violations_of(failure)) == sorted(wrong)


async def test_more_cohorts_than_fit_are_refused(scene: Scene) -> None:
    request = pb.ReportRetentionRequest(
        store_uid=scene.store_uid,
        start_time=timestamp(NOON - timedelta(days=101)),
        end_time=timestamp(NOON),
    )

    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await scene.query.ReportRetention(request, **asked(scene))

    assert list(violations_of(failure)) == ["start_time"]
