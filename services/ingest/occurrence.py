"""Says when an event happened, by the server's clock.

receivedAt − (sentAt − originalTimestamp), as Segment has it:
https://segment.com/docs/connections/spec/common/#timestamps
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

IN_FUTURE, TOO_OLD = "time_in_future", "time_too_old"
"""Flags of events whose time could not be believed."""

OLDEST = timedelta(days=3653)
"""No event is held to have happened longer ago than this, which is ten years."""

OLDEST_CLAIM = timedelta(days=30)
"""Nor longer than this, if anybody can have made it up. Devices that were offline for weeks may."""

_TOLERANCE = timedelta(seconds=1)
_NOW = timedelta(0)


def read_time(text: str) -> datetime:
    """The time that an ISO 8601 text tells, in UTC; raises `ValueError` if it tells none."""
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time that its zone moves out of the calendar") from None


def correct_time(
    original: datetime, *, sent: datetime | None, received: datetime, oldest: timedelta
) -> tuple[datetime, str]:
    """When it happened, and a flag, or none, if that is as far as the time could be believed.

    Nothing happens after it was received, or longer before than `oldest`.
    """
    delay = (sent or received) - original
    if delay < _NOW:
        return received, IN_FUTURE if delay < -_TOLERANCE else ""
    if delay > oldest:
        return received - oldest, TOO_OLD
    return received - delay, ""
