"""How fresh the read models are, which a quiet log alone does not tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

_NEAR = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a shard of the log has been read."""

    shard: int
    position: int
    as_of_time: datetime | None
    """All events that were stored before this time stand at or before the position."""
    change_number: int = 0
    """The change of the log that left the events up to the position as they were counted."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """How fresh an answer is."""

    time: datetime | None
    """All events that were stored before this time are included; None if none is known."""
    event_count: int
    """How many events of the log are included, of all stores."""


class Sightings:
    """The latest time at which each shard was seen to hold nothing new.

    Kept in memory: a log at rest must not cost a transaction every few seconds.
    """

    def __init__(self) -> None:
        self._seen: dict[int, Cursor] = {}

    def note(self, cursor: Cursor) -> None:
        """Note that the cursor's shard held nothing after it."""
        self._seen[cursor.shard] = cursor

    def freshness_of(self, cursors: Sequence[Cursor]) -> Freshness:
        """How fresh an answer is whose snapshot holds these cursors, of all shards."""
        times = [self._time_of(cursor) for cursor in cursors]
        known = [time for time in times if time is not None]
        return Freshness(
            # To which shard a store belongs only Ingest knows.
            time=min(known) if known and len(known) == len(times) else None,
            event_count=sum(cursor.position for cursor in cursors),
        )

    def _time_of(self, cursor: Cursor) -> datetime | None:
        seen = self._seen.get(cursor.shard)
        # What was seen holds for the snapshot too, unless the snapshot is of before.
        if seen and seen.position <= cursor.position:
            return later(cursor.as_of_time, seen.as_of_time)
        return cursor.as_of_time


def keeps_up(copied: Sequence[Cursor], listed: Sequence[Cursor]) -> bool:
    """Whether a copy is as far as what it copies, or has been lately."""
    known = {cursor.shard: cursor for cursor in copied}

    def is_near(cursor: Cursor) -> bool:
        copy = known.get(cursor.shard)
        if copy is None or copy.change_number != cursor.change_number:
            return not cursor.position
        if copy.position >= cursor.position:
            return True
        if copy.as_of_time is None or cursor.as_of_time is None:
            return False
        return cursor.as_of_time - copy.as_of_time <= _NEAR

    return all(is_near(cursor) for cursor in listed)


def later(one: datetime | None, other: datetime | None) -> datetime | None:
    """The later of two times, of which either may be unknown."""
    return max((time for time in (one, other) if time is not None), default=None)
