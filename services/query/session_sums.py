"""What the sums of sessions gain and lose: by quarter of an hour, and by day and value."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from enum import IntEnum

import msgspec
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from common.uid import format_uid
from services.query import bulk
from services.query.bulk import Key, Row, time_text
from services.query.quarters import QUARTERS_A_DAY, quarter_of
from services.query.sessions import Session
from services.query.tables import session_days, session_sums

SESSION_SUMS = ("session_count", "bounce_count", "page_count", "duration")
"""What is summed, in both tables."""

_encoder = msgspec.msgpack.Encoder()
_MOST_KEYS = 300
_MICROSECOND = timedelta(microseconds=1)


class SessionDimension(IntEnum):
    """By what sessions are told apart. The numbers stand in the database."""

    ENTRY_PAGE = 1
    EXIT_PAGE = 2
    CAMPAIGN = 3
    REFERRER = 4


# As plain numbers, since looking them up in the enum takes longer than to count.
_ENTRY, _EXIT, _CAMPAIGN, _REFERRER = map(int, SessionDimension)


class SessionChanges:
    """Counts sessions in and out, and writes what that comes to."""

    def __init__(self, generation: int) -> None:
        self._generation = generation
        self._quarters: defaultdict[tuple[bytes, int], list[int]]
        self._quarters = defaultdict(lambda: [0, 0, 0, 0])
        self._days: defaultdict[tuple[bytes, int, int, str], list[int]]
        self._days = defaultdict(lambda: [0, 0, 0, 0])

    def count(self, store: bytes, session: Session, *, sign: int) -> None:
        """Count a session, or with a negative sign take it away."""
        quarter = quarter_of(session.start_time)
        bounces = sign if session.bounced else 0
        pages, duration = sign * session.page_count, sign * duration_of(session)
        sums = self._quarters[store, quarter]
        sums[0] += sign
        sums[1] += bounces
        sums[2] += pages
        sums[3] += duration
        # Days in UTC: what a report takes of others, it takes from the sessions themselves.
        day = quarter // QUARTERS_A_DAY
        for key in (
            (store, _ENTRY, day, session.entry_page),
            (store, _EXIT, day, session.exit_page),
            (store, _CAMPAIGN, day, session.campaign),
            (store, _REFERRER, day, session.referrer),
        ):
            sums = self._days[key]
            sums[0] += sign
            sums[1] += bounces
            sums[2] += pages
            sums[3] += duration

    async def write(self, transaction: AsyncConnection) -> None:
        """Change the sums in the caller's transaction."""
        await bulk.put(
            transaction,
            session_sums,
            [
                (self._generation, *key, *sums)
                for key, sums in sorted(self._quarters.items())
                if any(sums)
            ],
            add=SESSION_SUMS,
        )
        days: list[Row] = [
            (self._generation, store, dimension, day, value.encode(), *sums)
            for (store, dimension, day, value), sums in sorted(self._days.items())
            if any(sums)
        ]
        await bulk.put(transaction, session_days, days, add=SESSION_SUMS)

    async def drop_empty(self, transaction: AsyncConnection) -> None:
        """Remove days that count nothing any more: a value may be a text of a person's."""
        column = session_days.c
        lessened: defaultdict[tuple[bytes, int], list[tuple[int, str]]] = defaultdict(list)
        for (store, dimension, day, value), sums in sorted(self._days.items()):
            if sums[0] < 0:
                lessened[store, dimension].append((day, value))
        for (store, dimension), places in lessened.items():
            for start in range(0, len(places), _MOST_KEYS):
                some = places[start : start + _MOST_KEYS]
                # By each column, as neither database looks tuples up by an index. Whatever else
                # that meets counts nothing either.
                await transaction.execute(
                    delete(session_days).where(
                        column.generation == self._generation,
                        column.store_uid == format_uid("sto", store),
                        column.dimension == dimension,
                        column.day.in_(sorted({day for day, _ in some})),
                        column.value.in_(sorted({value for _, value in some})),
                        column.session_count == 0,
                    )
                )


def duration_of(session: Session) -> int:
    """How long it was, in microseconds."""
    return (session.end_time - session.start_time) // _MICROSECOND


def session_row(generation: int, key: Key, session: Session) -> Row:
    """A row of `sessions`, for a store and what stands for a subject in it."""
    return (
        generation,
        *key,
        time_text(session.start_time),
        session.start_mark,
        time_text(session.end_time),
        quarter_of(session.start_time),
        session.entry_page.encode(),
        session.exit_page.encode(),
        session.campaign.encode(),
        session.referrer.encode(),
        int(session.bounced),
        session.page_count,
        duration_of(session),
        _encoder.encode(session),
    )
