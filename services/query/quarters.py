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
