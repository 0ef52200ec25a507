from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.query.quarters import time_of
from services.query.reports import TooManyPeriods, boundaries_of, stretches_of
from shoptrail.query.v1.report_pb2 import Interval

HOUR, DAY, WEEK = Interval.INTERVAL_HOUR, Interval.INTERVAL_DAY, Interval.INTERVAL_WEEK
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",  # half past; its clock changed at a minute past midnight until 2011
    "America/Havana",  # sees midnight twice
    "Africa/Cairo",  # skips midnight
    "America/Nuuk",
    "Asia/Kathmandu",  # a quarter to
    "Australia/Lord_Howe",  # its clock changes by half an hour
    "Pacific/Chatham",
    "Pacific/Apia",  # left out 30 December 2011
]


def periods(
    start: datetime, end: datetime, interval: Interval.ValueType, zone: str
) -> list[datetime]:
    return boundaries_of(start, end, interval=interval, zone=ZoneInfo(zone), most=2000)


def hours_of(boundaries: list[datetime]) -> list[float]:
    return [(after - before) / timedelta(hours=1) for before, after in pairwise(boundaries)]


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", date(2026, 3, 29), 23),
        ("Europe/Berlin", date(2026, 10, 25), 25),
        ("Europe/Berlin", date(2026, 7, 1), 24),
        ("Africa/Cairo", date(2026, 4, 24), 23),
        ("America/Havana", date(2026, 11, 1), 25),
        ("Australia/Lord_Howe", date(2026, 4, 5), 24.5),
        ("Australia/Lord_Howe", date(2026, 10, 4), 23.5),
    ],
)
def test_a_day_is_as_long_as_its_clock_says(zone: str, day: date, hours: float) -> None:
    noon = datetime.combine(day, time(12), ZoneInfo(zone))

    boundaries = periods(noon, noon + timedelta(minutes=1), DAY, zone)

    assert hours_of(boundaries) == [hours]


def test_a_week_goes_from_monday_to_monday_across_a_clock_change() -> None:
    wednesday = datetime(2026, 3, 25, 9, tzinfo=UTC)

    boundaries = periods(wednesday, wednesday + timedelta(minutes=1), WEEK, "Europe/Berlin")

    assert hours_of(boundaries) == [7 * 24 - 1]
    assert [boundary.isoformat() for boundary in boundaries] == [
        "2026-03-22T23:00:00+00:00",
        "2026-03-29T22:00:00+00:00",
    ]


def test_a_day_that_a_place_left_out_is_left_out() -> None:
    start, end = datetime(2011, 12, 29, 12, tzinfo=UTC), datetime(2011, 12, 31, 12, tzinfo=UTC)

    boundaries = periods(start, end, DAY, "Pacific/Apia")

    apia = ZoneInfo("Pacific/Apia")
    assert [boundary.astimezone(apia).day for boundary in boundaries] == [29, 31, 1, 2]
    assert hours_of(boundaries) == [24, 24, 24]


def test_hours_around_a_change_of_half_an_hour_end_when_the_clock_shows_a_full_one() -> None:
    start = datetime(2026, 4, 4, 13, 10, tzinfo=UTC)

    boundaries = periods(start, start + timedelta(hours=4), HOUR, "Australia/Lord_Howe")

    assert hours_of(boundaries) == [1, 1.5, 1, 1]


@given(
    start=st.datetimes(
        min_value=datetime(1981, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
        max_value=datetime(2037, 1, 1),  # noqa: DTZ001
        timezones=st.just(UTC),
    ),
    hours=st.integers(1, 1500),
    interval=st.sampled_from([HOUR, DAY, WEEK]),
    zone=st.sampled_from(ZONES),
)
def test_periods_cover_the_range_and_begin_where_the_clock_begins_one(
    start: datetime, hours: int, interval: Interval.ValueType, zone: str
) -> None:
    end = start + timedelta(hours=hours)

    boundaries = periods(start, end, interval, zone)

    assert boundaries == sorted(set(boundaries))
    assert boundaries[0] <= start < boundaries[1]
    assert boundaries[-2] < end <= boundaries[-1]
    for boundary in boundaries:
        local = boundary.astimezone(ZoneInfo(zone))
        before = (boundary - timedelta(microseconds=1)).astimezone(ZoneInfo(zone))
        assert (local.minute, local.second, local.microsecond) == (0, 0, 0) or interval != HOUR
        if interval == DAY:
            assert before.date() < local.date()
        if interval == WEEK:
            assert before.isocalendar()[:2] < local.isocalendar()[:2]


@given(
    start=st.datetimes(
        min_value=datetime(1981, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
        max_value=datetime(2037, 1, 1),  # noqa: DTZ001
        timezones=st.just(UTC),
    ),
    days=st.integers(1, 400),
    zone=st.sampled_from(ZONES),
)
def test_stretches_are_the_same_periods(start: datetime, days: int, zone: str) -> None:
    boundaries = periods(start, start + timedelta(days=days), DAY, zone)

    stretches = stretches_of(boundaries)

    again = [
        time_of(stretch.first_quarter + index * stretch.period_quarters)
        for stretch in stretches
        for index in range(stretch.period_count)
    ]
    assert again == boundaries[:-1]
    assert time_of(stretches[-1].end_quarter) == boundaries[-1]
    # One for each run of days that are equally long: where clocks change, in some years four times.
    lengths = [until - since for since, until in pairwise(boundaries)]
    assert len(stretches) == 1 + sum(before != after for before, after in pairwise(lengths))


def test_2000_periods_are_served_and_one_more_is_not() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)

    assert len(periods(start, start + timedelta(hours=2000), HOUR, "UTC")) == 2001
    with pytest.raises(TooManyPeriods):
        periods(start, start + timedelta(hours=2000, seconds=1), HOUR, "UTC")
