"""Cuts what a browser or app did into sessions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

import msgspec

LONGEST_PAUSE = timedelta(minutes=30)
"""A session ends when nothing happened for longer."""

MOST_HITS = 500
"""A session has no more events: a robot that never pauses must not make one without end."""

_LENGTH_BYTES = 4


class HitKind(IntEnum):
    """What a hit counts as in its session."""

    OTHER = 0
    ACTION = 1
    PAGE = 2


# Structs, which are made in a fraction of a dataclass's time: there is a hit for each event.
class Hit(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An event as its session sees it."""

    time: datetime
    mark: bytes
    """Orders events of the same time, wherever they stand in the log."""
    kind: HitKind
    page: str
    """Of a page or screen its path, of others empty."""
    campaign: str
    referrer: str

    @property
    def place(self) -> tuple[datetime, bytes]:
        return self.time, self.mark


class Session(msgspec.Struct, frozen=True, gc=False, array_like=True):
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
    trail: bytes
    """The hits, one after the other, as `hits_of` reads them."""

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


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Hit)


def hits_of(session: Session) -> list[Hit]:
    """What the session is made of."""
    hits = []
    trail, place = session.trail, 0
    while place < len(trail):
        begin = place + _LENGTH_BYTES
        place = begin + int.from_bytes(trail[place:begin])
        hits.append(_decoder.decode(trail[begin:place]))
    return hits


def cut_into_sessions(hits: Iterable[Hit], *, after: Session | None = None) -> list[Session]:
    """The sessions that the hits make, which are sorted by their places.

    If they follow a session, that is the first of the list, and may have grown.
    """
    sessions: list[Session] = []
    current = after
    run: list[Hit] = []
    hit_count, campaign = (after.hit_count, after.campaign) if after else (0, "")
    end_time = after.end_time if after else None
    for hit in hits:
        if end_time is not None and (
            hit.time - end_time > LONGEST_PAUSE
            or (hit.campaign and hit.campaign != campaign)
            or hit_count >= MOST_HITS
        ):
            sessions.append(_with_hits(current, run))
            current, run, hit_count = None, [], 0
        if not hit_count:
            campaign = hit.campaign
        run.append(hit)
        hit_count += 1
        end_time = hit.time
    if current is not None or run:
        sessions.append(_with_hits(current, run))
    return sessions


def _with_hits(session: Session | None, hits: Sequence[Hit]) -> Session:
    """The session with the hits that follow; one that they begin, if there is none."""
    if session is not None and not hits:
        return session
    first, last = hits[0], hits[-1]
    pages = [hit.page for hit in hits if hit.kind is HitKind.PAGE]
    action_count = sum([hit.kind is HitKind.ACTION for hit in hits])
    named = [page for page in pages if page]
    entry_page, exit_page = (named[0], named[-1]) if named else ("", "")
    trail = b"".join([_framed(hit) for hit in hits])
    if session is None:
        return Session(
            first.time,
            first.mark,
            last.time,
            last.mark,
            len(hits),
            len(pages),
            action_count,
            entry_page,
            exit_page,
            first.campaign,
            first.referrer,
            trail,
        )
    return Session(
        session.start_time,
        session.start_mark,
        last.time,
        last.mark,
        session.hit_count + len(hits),
        session.page_count + len(pages),
        session.action_count + action_count,
        session.entry_page or entry_page,
        exit_page or session.exit_page,
        session.campaign,
        session.referrer,
        session.trail + trail,
    )


def _framed(hit: Hit) -> bytes:
    encoded = _encoder.encode(hit)
    return len(encoded).to_bytes(_LENGTH_BYTES) + encoded


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
