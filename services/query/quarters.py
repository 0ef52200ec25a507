"""The grid on which events are counted: the quarters of an hour since 1970.

Not hours, since clocks differ from UTC by 30 or 45 minutes too, as in Kolkata
and Kathmandu. Since 1980 all time zones' hours begin on a quarter.
"""

from datetime import UTC, datetime, timedelta

QUARTER = timedelta(minutes=15)
QUARTER_SECONDS = 15 * 60
QUARTERS_A_DAY = 96
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def quarter_of(time: datetime) -> int:
    """The number of the quarter that the time lies in."""
    return (time - _EPOCH) // QUARTER


def time_of(quarter: int) -> datetime:
    """When the quarter begins."""
    return _EPOCH + quarter * QUARTER


def split_into_days(first: int, end: int) -> tuple[int, int, list[tuple[int, int]]]:
    """The whole days in UTC of a range of quarters, and what is left of it at both ends.

    Days are numbered since 1970; no end is included.
    """
    first_day = -(-first // QUARTERS_A_DAY)
    end_day = max(end // QUARTERS_A_DAY, first_day)
    before = first, min(first_day * QUARTERS_A_DAY, end)
    after = max(end_day * QUARTERS_A_DAY, before[1]), end
    return first_day, end_day, [edge for edge in (before, after) if edge[0] < edge[1]]
