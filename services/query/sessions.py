"""Cuts what a browser or app did into sessions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum

LONGEST_PAUSE = timedelta(minutes=30)
"""A session ends when nothing happened for longer."""


class HitKind(IntEnum):
    """What a hit counts as in its session."""

    OTHER = 0
    ACTION = 1
    PAGE = 2


@dataclass(frozen=True, slots=True)
class Hit:
    """An event as its session sees it."""

    time: datetime
    mark: bytes
    """Orders events of the same time, wherever they stand in the log."""
    kind: HitKind
    page: str
    campaign: str
    referrer: str

    @property
    def place(self) -> tuple[datetime, bytes]:
        return self.time, self.mark


@dataclass(frozen=True, slots=True)
class Session:
    """What was done without a long pause, and under one campaign."""

    start_time: datetime
    start_mark: bytes
    end_time: datetime
    end_mark: bytes
    hit_count: int
    page_count: int
    action_count: int
    entry_page: str
    exit_page: str
    campaign: str
    """Of the first hit; a hit with another campaign begins a new session."""
    referrer: str
    """Of the first hit."""

    @property
    def start(self) -> tuple[datetime, bytes]:
        return self.start_time, self.start_mark

    @property
    def end(self) -> tuple[datetime, bytes]:
        return self.end_time, self.end_mark

    @property
    def bounced(self) -> bool:
        """Whether one page was all that was seen, and nothing done."""
        return self.page_count + self.action_count <= 1

    def takes(self, hit: Hit) -> bool:
        """Whether the hit, which is the next one, belongs to this session."""
        if hit.time - self.end_time > LONGEST_PAUSE:
            return False
        return not hit.campaign or hit.campaign == self.campaign

    def with_hit(self, hit: Hit) -> Session:
        """The session with the hit that follows."""
        seen = hit.page if hit.kind is HitKind.PAGE else ""
        return replace(
            self,
            end_time=hit.time,
            end_mark=hit.mark,
            hit_count=self.hit_count + 1,
            page_count=self.page_count + (hit.kind is HitKind.PAGE),
            action_count=self.action_count + (hit.kind is HitKind.ACTION),
            entry_page=self.entry_page or seen,
            exit_page=seen or self.exit_page,
        )


def cut_into_sessions(hits: Iterable[Hit], *, after: Session | None = None) -> list[Session]:
    """The sessions that the hits make, which are sorted by their places.

    If they follow a session, that is the first of the list, and may have grown.
    """
    sessions = [after] if after else []
    for hit in hits:
        if sessions and sessions[-1].takes(hit):
            sessions[-1] = sessions[-1].with_hit(hit)
            continue
        begun = Session(
            start_time=hit.time,
            start_mark=hit.mark,
            end_time=hit.time,
            end_mark=hit.mark,
            hit_count=0,
            page_count=0,
            action_count=0,
            entry_page="",
            exit_page="",
            campaign=hit.campaign,
            referrer=hit.referrer,
        )
        sessions.append(begun.with_hit(hit))
    return sessions


@dataclass(frozen=True, slots=True)
class Recut:
    """Which of a subject's sessions new hits can change."""

    kept: Session | None
    """The last that none of them can change but by following it."""
    changed: list[Session]
    """Those after it that are made anew, from their hits and the new ones."""


def plan_recut(sessions: Iterable[Session], new_hits: list[Hit]) -> Recut:
    """Where the sessions, sorted, must be cut anew for new hits, sorted.

    Ends at the first pause that stays one, since nothing reaches over it.
    """
    kept = None
    changed: list[Session] = []
    first, last = new_hits[0].place, new_hits[-1].place
    for session in sessions:
        if session.end < first:
            kept = session
            continue
        reach = max(last[0], changed[-1].end_time) if changed else last[0]
        if session.start_time - reach > LONGEST_PAUSE:
            break
        changed.append(session)
    return Recut(kept, changed)
