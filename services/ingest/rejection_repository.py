"""Ingest's SQL for what became of events.

Functions take the caller's transaction and never end it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Table, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from common.db import note_untidy
from common.uid import is_uid
from services.ingest.tables import (
    events,
    quota_receipts,
    rejected_events,
    store_settings,
    verdict_hours,
)


@dataclass(frozen=True, slots=True)
class RejectionFilter:
    """Which rejected events are meant: those for which all of it holds. Empty holds for all."""

    uids: Sequence[str] = ()
    code: str = ""
    path: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class StoredRejection:
    """A rejected event, as it is kept."""

    id: int
    uid: str
    store_uid: str
    message_key: bytes
    message_id: str
    type: int
    name: str
    code: str
    path: str
    message: str
    receive_time: datetime
    arrival: bytes
    payload: bytes
    fix_time: datetime | None


@dataclass(frozen=True, slots=True)
class Reason:
    """Rejected events with the same fault and name."""

    code: str
    path: str
    name: str
    event_count: int
    first_receive_time: datetime
    last_receive_time: datetime


_COLUMNS = tuple(rejected_events.c[name] for name in StoredRejection.__dataclass_fields__)
_FINDINGS = ("type", "name", "user_id", "anonymous_id", "code", "path", "message")


async def list_rejections(
    transaction: AsyncConnection,
    store_uid: str,
    chosen: RejectionFilter,
    *,
    before_id: int | None,
    limit: int,
    lock: bool = False,
) -> Sequence[StoredRejection]:
    """The store's rejected events, the latest first.

    `lock` keeps others from changing them until the transaction ends.
    """
    statement = (
        select(*_COLUMNS)
        .where(rejected_events.c.store_uid == store_uid)
        .order_by(rejected_events.c.id.desc())
        .limit(limit)
    )
    if chosen.uids:
        uids = [uid for uid in chosen.uids if is_uid("rej", uid)]
        statement = statement.where(rejected_events.c.uid.in_(uids))
    for name in ("code", "path", "name"):
        if value := getattr(chosen, name):
            statement = statement.where(rejected_events.c[name] == value)
    if before_id is not None:
        statement = statement.where(rejected_events.c.id < before_id)
    rows = await transaction.execute(statement.with_for_update() if lock else statement)
    return [StoredRejection(*row) for row in rows]


async def count_reasons(
    transaction: AsyncConnection, store_uid: str, *, limit: int
) -> Sequence[Reason]:
    """Why the store's events were rejected, the most frequent reason first."""
    reason = [rejected_events.c[name] for name in ("code", "path", "name")]
    count = func.count().label("event_count")
    statement = (
        select(
            *reason,
            count,
            func.min(rejected_events.c.receive_time),
            func.max(rejected_events.c.receive_time),
        )
        .where(rejected_events.c.store_uid == store_uid)
        .group_by(*reason)
        .order_by(count.desc(), *reason)
        .limit(limit)
    )
    rows: Sequence[Sequence[Any]] = (await transaction.execute(statement)).all()
    return [Reason(*row) for row in rows]


async def find_rejections(
    transaction: AsyncConnection, store_uid: str, message_keys: Sequence[bytes]
) -> Mapping[bytes, StoredRejection]:
    """The store's rejected events with these message ids, by their keys."""
    statement = select(*_COLUMNS).where(
        rejected_events.c.store_uid == store_uid, rejected_events.c.message_key.in_(message_keys)
    )
    found = [StoredRejection(*row) for row in await transaction.execute(statement)]
    return {rejection.message_key: rejection for rejection in found}


async def find_logged(
    transaction: AsyncConnection, store_uid: str, message_keys: Sequence[bytes]
) -> Mapping[bytes, tuple[str, datetime]]:
    """The uid and the receive time of the store's logged events with these message ids."""
    statement = select(events.c.message_key, events.c.uid, events.c.receive_time).where(
        events.c.store_uid == store_uid, events.c.message_key.in_(message_keys)
    )
    return {bytes(row[0]): (row[1], row[2]) for row in await transaction.execute(statement)}


async def find_turned_away(
    transaction: AsyncConnection, store_uid: str, message_keys: Sequence[bytes]
) -> Mapping[bytes, datetime]:
    """When the store's events with these message ids were received, of those beyond the quota."""
    statement = select(quota_receipts.c.message_key, quota_receipts.c.receive_time).where(
        quota_receipts.c.store_uid == store_uid, quota_receipts.c.message_key.in_(message_keys)
    )
    return {bytes(row[0]): row[1] for row in await transaction.execute(statement)}


async def save_findings(
    transaction: AsyncConnection, rejection_id: int, findings: Mapping[str, str | int]
) -> None:
    """Say anew what is known of a rejected event, and what is wrong with it."""
    await transaction.execute(
        update(rejected_events)
        .where(rejected_events.c.id == rejection_id)
        .values({name: value for name, value in findings.items() if name in _FINDINGS})
    )


async def save_fix(
    transaction: AsyncConnection, rejection_id: int, *, payload: bytes, now: datetime
) -> None:
    """Change what a rejected event says. What it said at first is kept."""
    await transaction.execute(
        update(rejected_events)
        .where(rejected_events.c.id == rejection_id, rejected_events.c.original_payload.is_(None))
        .values(original_payload=rejected_events.c.payload)
    )
    await transaction.execute(
        update(rejected_events)
        .where(rejected_events.c.id == rejection_id)
        .values(payload=payload, fix_time=now)
    )


async def delete_rejections(transaction: AsyncConnection, ids: Sequence[int]) -> None:
    """Remove rejected events that are no longer rejected."""
    if ids:
        await transaction.execute(delete(rejected_events).where(rejected_events.c.id.in_(ids)))


async def trim(
    transaction: AsyncConnection,
    table: Table,
    *,
    after_id: int,
    default_days: int,
    now: datetime,
    limit: int,
) -> tuple[int, int | None]:
    """Remove rejected events, or quota receipts, whose time is up, from a place on.

    Looks at `limit` of them; returns how many were removed, and where to go on or None.
    """
    rows = (
        await transaction.execute(
            select(
                table.c.id,
                table.c.receive_time,
                func.coalesce(store_settings.c.rejected_days, default_days),
            )
            .outerjoin(store_settings, store_settings.c.store_uid == table.c.store_uid)
            .where(table.c.id > after_id)
            .order_by(table.c.id)
            .limit(limit)
        )
    ).all()
    due = [row[0] for row in rows if row[1] < now - timedelta(days=row[2])]
    if due:
        await note_untidy(transaction)
        await transaction.execute(delete(table).where(table.c.id.in_(due)))
    return len(due), rows[-1][0] if len(rows) == limit else None


async def sum_verdicts(
    transaction: AsyncConnection, store_uid: str, *, begin_hour: int, end_hour: int
) -> Mapping[int, Mapping[int, int]]:
    """How many of the store's events got which verdict, by hour, from one hour up to another."""
    rows = await transaction.execute(
        select(verdict_hours.c.hour, verdict_hours.c.verdict, verdict_hours.c.event_count)
        .where(
            verdict_hours.c.store_uid == store_uid,
            verdict_hours.c.hour >= begin_hour,
            verdict_hours.c.hour < end_hour,
        )
        .order_by(verdict_hours.c.hour)
    )
    hours: dict[int, dict[int, int]] = {}
    for hour, verdict, count in rows:
        hours.setdefault(hour, {})[verdict] = int(count)
    return hours
