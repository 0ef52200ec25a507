from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import grpc
import pytest

from common.uid import new_uid
from services.query.freshness import Cursor
from shoptrail.ingest.v1.event_pb2 import Event
from shoptrail.query.v1.query_pb2 import CountEventsRequest, CountEventsResponse
from shoptrail.query.v1.report_pb2 import Interval
from tests.conftest import key_metadata
from tests.services.query.fake_ingest import NOON, PAGE, TRACK, happened, timestamp
from tests.services.query.scene import Scene, violations_of

HOUR, DAY, WEEK = Interval.INTERVAL_HOUR, Interval.INTERVAL_DAY, Interval.INTERVAL_WEEK


def series_of(response: CountEventsResponse) -> dict[str, list[int]]:
    return {series.name: list(series.counts) for series in response.series}


def period_times_of(response: CountEventsResponse) -> list[datetime]:
    return [time.ToDatetime(tzinfo=UTC) for time in response.period_times]


def scattered(store_uid: str, start: datetime, end: datetime, *, seed: int) -> list[Event]:
    """Events at any time of a range, in no order."""
    chance = random.Random(seed)  # noqa: S311 - nothing secret
    return [
        happened(
            store_uid,
            chance.choice(["Product Viewed", "Order Completed"]),
            at=start + chance.random() * (end - start),
            of=chance.choice([TRACK, TRACK, PAGE]),
        )
        for _ in range(400)
    ]


@pytest.mark.parametrize(
    ("zone", "start"),
    [
        ("Europe/Berlin", datetime(2026, 3, 27, 7, tzinfo=UTC)),
        ("Europe/Berlin", datetime(2026, 10, 23, 7, tzinfo=UTC)),
        ("America/St_Johns", datetime(2026, 3, 6, 7, tzinfo=UTC)),
        ("Asia/Kathmandu", datetime(2026, 3, 6, 7, tzinfo=UTC)),
        ("Australia/Lord_Howe", datetime(2026, 4, 2, 7, tzinfo=UTC)),
        ("Africa/Cairo", datetime(2026, 4, 22, 7, tzinfo=UTC)),
        ("Pacific/Apia", datetime(2011, 12, 28, 7, tzinfo=UTC)),
    ],
)
async def test_days_are_counted_as_the_zone_dates_them(
    scene: Scene, zone: str, start: datetime
) -> None:
    end = start + timedelta(days=5)
    events = scattered(scene.store_uid, start, end, seed=1)
    await scene.project(*events)

    response = await scene.count(
        CountEventsRequest(
            start_time=timestamp(start), end_time=timestamp(end), interval=DAY, time_zone=zone
        )
    )

    def date_of(time: datetime) -> date:
        return time.astimezone(ZoneInfo(zone)).date()

    expected = Counter(
        (
            event.name if event.type == TRACK else "page",
            date_of(event.occur_time.ToDatetime(tzinfo=UTC)),
        )
        for event in events
    )
    dates = [date_of(time) for time in period_times_of(response)]
    assert {
        (name, day): count
        for name, counts in series_of(response).items()
        for day, count in zip(dates, counts, strict=True)
        if count
    } == expected
    assert response.total_count == len(events)


@pytest.mark.parametrize("interval", [HOUR, WEEK])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu"])
async def test_each_event_is_counted_in_the_period_in_which_it_happened(
    scene: Scene, zone: str, interval: Interval.ValueType
) -> None:
    start = datetime(2026, 3, 20, 7, 12, tzinfo=UTC)
    end = start + timedelta(days=20)
    events = scattered(scene.store_uid, start, end, seed=2)
    await scene.project(*events)

    response = await scene.count(
        CountEventsRequest(
            start_time=timestamp(start), end_time=timestamp(end), interval=interval, time_zone=zone
        )
    )

    edges = period_times_of(response)
    for series in response.series:
        times = [
            event.occur_time.ToDatetime(tzinfo=UTC)
            for event in events
            if (event.name if event.type == TRACK else "page") == series.name
        ]
        expected = Counter(max(edge for edge in edges if edge <= time) for time in times)
        assert dict(zip(edges, series.counts, strict=True)) == {
            edge: expected[edge] for edge in edges
        }
        assert series.total_count == len(times) == sum(series.counts)


async def test_series_are_ordered_by_frequency_and_then_by_name(scene: Scene) -> None:
    await scene.project(
        *(happened(scene.store_uid, name) for name in ["b", "c", "c", "a", "Zürich", "c "])
    )

    response = await scene.count(CountEventsRequest(interval=HOUR))

    totals = [(series.name, series.total_count) for series in response.series]
    assert totals == [("c", 2), ("Zürich", 1), ("a", 1), ("b", 1), ("c ", 1)]


async def test_a_range_is_widened_to_whole_periods(scene: Scene) -> None:
    await scene.project(
        happened(scene.store_uid, at=NOON - timedelta(microseconds=1)),
        happened(scene.store_uid, at=NOON),
        happened(scene.store_uid, at=NOON + timedelta(hours=1, microseconds=-1)),
        happened(scene.store_uid, at=NOON + timedelta(hours=1)),
    )

    response = await scene.count(
        CountEventsRequest(
            start_time=timestamp(NOON + timedelta(minutes=30)),
            end_time=timestamp(NOON + timedelta(minutes=31)),
            interval=HOUR,
        )
    )

    assert period_times_of(response) == [NOON]
    assert series_of(response) == {"Product Viewed": [2]}


@pytest.mark.parametrize(
    ("interval", "period_count"),
    [(HOUR, 25), (DAY, 31), (WEEK, 13), (Interval.INTERVAL_UNSPECIFIED, 31)],
)
async def test_without_a_range_the_latest_periods_are_counted(
    scene: Scene, interval: Interval.ValueType, period_count: int
) -> None:
    await scene.project(happened(scene.store_uid))

    response = await scene.count(CountEventsRequest(interval=interval))

    assert len(response.period_times) == period_count
    assert series_of(response) == {"Product Viewed": [0] * (period_count - 1) + [1]}


async def test_only_the_names_asked_for_are_counted(scene: Scene) -> None:
    await scene.project(*(happened(scene.store_uid, name) for name in "aab"))

    response = await scene.count(CountEventsRequest(names=["a", "missing"]))

    assert [(series.name, series.total_count) for series in response.series] == [("a", 2)]
    assert response.total_count == 2


async def test_only_the_events_of_the_store_are_counted(scene: Scene) -> None:
    await scene.project(happened(scene.store_uid), happened(new_uid("sto"), "elsewhere"))

    assert list(series_of(await scene.count(CountEventsRequest()))) == ["Product Viewed"]


async def test_a_store_without_events_has_none(scene: Scene) -> None:
    response = await scene.count(CountEventsRequest())

    assert (len(response.period_times), len(response.series), response.total_count) == (31, 0, 0)
    assert not response.as_of.HasField("time")


async def test_beyond_1000_names_the_rarest_are_left_out_of_the_series_only(scene: Scene) -> None:
    names = [f"name {number:04}" for number in range(1002)]
    await scene.project(*(happened(scene.store_uid, name) for name in [*names, names[-1]]))

    response = await scene.count(CountEventsRequest())

    assert [series.name for series in response.series] == [names[-1], *names[:999]]
    assert response.total_count == 1003


async def test_the_answer_says_how_fresh_it_is(scene: Scene) -> None:
    await scene.project(happened(scene.store_uid, at=NOON))
    first = await scene.count(CountEventsRequest())
    scene.sightings.note(Cursor(0, position=1, as_of_time=NOON + timedelta(minutes=3)))
    second = await scene.count(CountEventsRequest())

    assert first.as_of.position == second.as_of.position == 1
    assert first.as_of.time.ToDatetime(tzinfo=UTC) == NOON + timedelta(seconds=1)
    assert second.as_of.time.ToDatetime(tzinfo=UTC) == NOON + timedelta(minutes=3)


async def test_everything_wrong_with_a_request_is_named_at_once(scene: Scene) -> None:
    request = CountEventsRequest(
        store_uid="sto_nonsense",
        start_time=timestamp(datetime(1970, 1, 1, tzinfo=UTC)),
        interval=9,  # type: ignore[arg-type]  # what a newer caller might send
        time_zone="Europe/Atlantis",
        names=["a"] * 51,
    )
    request.end_time.seconds = 10**15

    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await scene.count(request)

    assert sorted(violations_of(failure)) == [
        "end_time",
        "interval",
        "names",
        "start_time",
        "store_uid",
        "time_zone",
    ]


@pytest.mark.parametrize(
    "zone", ["../../etc/passwd", "/etc/localtime", "right/UTC", "localtime", "America", "x" * 5000]
)
async def test_only_names_of_the_iana_database_are_time_zones(scene: Scene, zone: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await scene.count(CountEventsRequest(time_zone=zone))

    assert list(violations_of(failure)) == ["time_zone"]


@pytest.mark.parametrize("length", [timedelta(0), timedelta(days=-1), timedelta(days=2001)])
async def test_a_range_without_periods_or_with_too_many_is_refused(
    scene: Scene, length: timedelta
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await scene.count(
            CountEventsRequest(start_time=timestamp(NOON), end_time=timestamp(NOON + length))
        )

    assert list(violations_of(failure)) == ["start_time"]


async def test_a_key_of_another_store_is_refused(scene: Scene) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await scene.query.CountEvents(
            CountEventsRequest(store_uid=scene.store_uid),
            timeout=5,
            metadata=key_metadata("reports:read", store_uid=new_uid("sto")),
        )

    assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED
