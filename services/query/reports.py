"""The periods of a report: hours, days and weeks as a time zone's clock shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby, pairwise
from zoneinfo import ZoneInfo

from services.query.quarters import QUARTER, quarter_of
from shoptrail.query.v1.report_pb2 import Interval

DEFAULT_LENGTHS = {
    Interval.INTERVAL_HOUR: timedelta(hours=24),
    Interval.INTERVAL_DAY: timedelta(days=30),
    Interval.INTERVAL_WEEK: timedelta(weeks=12),
}
"""The length of a range that has no beginning."""

_HOUR = timedelta(hours=1)


class TooManyPeriods(ValueError):
    """The range has more periods than a report may have."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Periods of equal length, one after the other."""

    first_period: int
    """Its index among the periods of the report."""
    period_count: int
    first_quarter: int
    period_quarters: int
    """The length of each period."""

    @property
    def end_quarter(self) -> int:
        """The first quarter after the last period."""
        return self.first_quarter + self.period_count * self.period_quarters


def boundaries_of(
    start: datetime, end: datetime, *, interval: Interval.ValueType, zone: ZoneInfo, most: int
) -> list[datetime]:
    """Where the periods begin that cover the range, and last where the last of them ends.

    In UTC, each later than the one before. The range must lie between 1980 and
    the year 9998. Raises `TooManyPeriods` if there are more than `most` periods.
    """
    if interval == Interval.INTERVAL_HOUR:
        beginnings = _hours(start, zone)
    else:
        beginnings = _days(start, zone, weeks=interval == Interval.INTERVAL_WEEK)
    boundaries = [next(beginnings)]
    while boundaries[-1] < end:
        if len(boundaries) > most:
            raise TooManyPeriods
        boundaries.append(next(beginnings))
    return boundaries


def stretches_of(boundaries: Sequence[datetime]) -> list[Stretch]:
    """The same periods, in stretches that a division tells apart.

    The clock changes between two of them.
    """
    stretches = []
    index = 0
    lengths = ((after - before) // QUARTER for before, after in pairwise(boundaries))
    for length, periods in groupby(lengths):
        count = sum(1 for _ in periods)
        first_quarter = quarter_of(boundaries[index])
        stretches.append(Stretch(index, count, first_quarter, length))
        index += count
    return stretches


def _hours(start: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """The full hour at or before `start` by the zone's clock, and those after it."""
    hour = start.astimezone(UTC)
    # Once, but where the clock changes by half an hour, and then twice.
    while past := _past_the_hour(hour, zone):
        hour -= past
    while True:
        yield hour
        hour += _HOUR
        if past := _past_the_hour(hour, zone):
            hour += _HOUR - past


def _past_the_hour(instant: datetime, zone: ZoneInfo) -> timedelta:
    local = instant.astimezone(zone)
    return timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)


def _days(start: datetime, zone: ZoneInfo, *, weeks: bool) -> Iterator[datetime]:
    """The midnight at or before `start`, of Monday if by weeks, and those after it."""
    day = start.astimezone(zone).date()
    if weeks:
        day -= timedelta(days=day.weekday())
    step = timedelta(days=7 if weeks else 1)
    midnight = _midnight(day, zone)
    while True:
        yield midnight
        previous = midnight
        # Islands at the date line have left out a whole day.
        while midnight <= previous:
            day += step
            midnight = _midnight(day, zone)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """When the day begins: where the clock skips midnight, at the time that it skips to."""
    return datetime.combine(day, time(), zone).astimezone(UTC)
