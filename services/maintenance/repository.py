"""Maintenance's SQL. Functions take the caller's transaction and never end it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from common.db import note_untidy
from common.uid import is_uid
from services.maintenance.tables import archive_parts, privacy_cases, subject_keys

_KEYS_A_QUERY = 300


class Kind(IntEnum):
    """What is asked for. The numbers are those of the proto and of the table."""

    ERASE = 1
    SUPPRESS = 2
    UNSUPPRESS = 3
    EXPORT = 4


class State(IntEnum):
    """How far a case is. The numbers are those of the proto and of the table."""

    PENDING = 1
    RUNNING = 2
    DONE = 3
    FAILED = 4


class TakenOver(Exception):
    """Another process works on the case: this one may not write any more."""


@dataclass(frozen=True, slots=True)
class StoredCase:
    """A case, as it is kept."""

    id: int
    uid: str
    store_uid: str
    kind: int
    state: int
    subject_hash: bytes
    sealed_subject: bytes | None
    id_count: int
    counts: bytes
    failure: str
    fence: int
    attempt_count: int
    create_time: datetime
    suppress_time: datetime | None
    end_time: datetime | None
    receipt: bytes | None
    archive_part_count: int


_COLUMNS = tuple(privacy_cases.c[name] for name in StoredCase.__dataclass_fields__)


async def add_case(
    transaction: AsyncConnection,
    *,
    uid: str,
    store_uid: str,
    kind: Kind,
    subject_hash: bytes,
    sealed_subject: bytes,
    now: datetime,
) -> None:
    """Open a case."""
    await transaction.execute(
        insert(privacy_cases).values(
            uid=uid,
            store_uid=store_uid,
            kind=kind,
            state=State.PENDING,
            subject_hash=subject_hash,
            sealed_subject=sealed_subject,
            id_count=0,
            counts=b"{}",
            failure="",
            fence=0,
            lease_time=now,
            attempt_count=0,
            create_time=now,
            archive_part_count=0,
        )
    )


async def find_case(transaction: AsyncConnection, store_uid: str, uid: str) -> StoredCase | None:
    """The store's case, if it has such a one."""
    if not is_uid("case", uid):
        return None
    column = privacy_cases.c
    row = (
        await transaction.execute(
            select(*_COLUMNS).where(column.uid == uid, column.store_uid == store_uid)
        )
    ).one_or_none()
    return StoredCase(*row) if row else None


async def list_cases(
    transaction: AsyncConnection,
    store_uid: str,
    *,
    state: int,
    before_id: int | None,
    limit: int,
) -> list[StoredCase]:
    """A store's cases, the latest first; only those in a state, unless that is 0."""
    column = privacy_cases.c
    statement = (
        select(*_COLUMNS)
        .where(column.store_uid == store_uid)
        .order_by(column.id.desc())
        .limit(limit)
    )
    if state:
        statement = statement.where(column.state == state)
    if before_id is not None:
        statement = statement.where(column.id < before_id)
    return [StoredCase(*row) for row in await transaction.execute(statement)]


async def claim_case(
    transaction: AsyncConnection, *, now: datetime, lease: timedelta
) -> StoredCase | None:
    """Take the case that is due first, if there is one, for as long as the lease lasts."""
    column = privacy_cases.c
    due = (
        select(*_COLUMNS)
        .where(
            column.state.in_([State.PENDING, State.RUNNING, State.FAILED]),
            column.lease_time <= now,
        )
        .order_by(column.lease_time, column.id)
        .limit(1)
    )
    row = (await transaction.execute(due)).one_or_none()
    if row is None:
        return None
    case = StoredCase(*row)
    claimed = await transaction.execute(
        update(privacy_cases)
        .where(column.id == case.id, column.fence == case.fence)
        .values(
            state=State.RUNNING,
            fence=case.fence + 1,
            lease_time=now + lease,
            attempt_count=case.attempt_count + 1,
        )
    )
    if claimed.rowcount != 1:
        return None
    return await _get(transaction, case.id)


async def save_case(
    transaction: AsyncConnection, case: StoredCase, *, lease_time: datetime, **values: Any
) -> StoredCase:
    """Note how far a case is; raises `TakenOver` if another process has it."""
    column = privacy_cases.c
    saved = await transaction.execute(
        update(privacy_cases)
        .where(column.id == case.id, column.fence == case.fence)
        .values(lease_time=lease_time, **values)
    )
    if saved.rowcount != 1:
        raise TakenOver(case.uid)
    return await _get(transaction, case.id)


async def put_archive_part(
    transaction: AsyncConnection, case: StoredCase, part: int, content: bytes
) -> None:
    """Keep a part of an archive, in place of what was kept of it before."""
    await delete_archive(transaction, case.id, part=part)
    await transaction.execute(
        insert(archive_parts).values(case_id=case.id, part=part, content=content)
    )


async def get_archive_part(transaction: AsyncConnection, case: StoredCase, part: int) -> bytes:
    """A part of the case's archive; empty if there is none."""
    column = archive_parts.c
    found = await transaction.scalar(
        select(column.content).where(column.case_id == case.id, column.part == part)
    )
    return bytes(found or b"")


async def delete_archive(
    transaction: AsyncConnection, case_id: int, *, part: int | None = None
) -> int:
    """Remove a case's archive, or a part of it; returns how many parts went."""
    statement = delete(archive_parts).where(archive_parts.c.case_id == case_id)
    if part is not None:
        statement = statement.where(archive_parts.c.part == part)
    return (await transaction.execute(statement)).rowcount


async def list_archived(transaction: AsyncConnection, store_uid: str) -> list[StoredCase]:
    """A store's cases that have an archive, or are making one."""
    column = privacy_cases.c
    statement = select(*_COLUMNS).where(
        column.store_uid == store_uid,
        column.kind == Kind.EXPORT,
        column.sealed_subject.is_not(None),
    )
    return [StoredCase(*row) for row in await transaction.execute(statement)]


async def close_archive(transaction: AsyncConnection, case_id: int) -> int:
    """Remove an export's archive and the ids that it is about; returns how many parts went."""
    parts = await delete_archive(transaction, case_id)
    if parts:
        await note_untidy(transaction)
    await transaction.execute(
        update(privacy_cases)
        .where(privacy_cases.c.id == case_id)
        .values(archive_part_count=0, sealed_subject=None)
    )
    return parts


async def close_old_archives(transaction: AsyncConnection, *, before: datetime, limit: int) -> int:
    """Close archives that were made before a time; returns how many."""
    column = privacy_cases.c
    ids = (
        (
            await transaction.execute(
                select(column.id)
                .where(
                    column.kind == Kind.EXPORT,
                    column.state == State.DONE,
                    column.sealed_subject.is_not(None),
                    column.end_time < before,
                )
                .limit(limit)
            )
        )
        .scalars()
        .all()
    )
    for case_id in ids:
        await close_archive(transaction, case_id)
    return len(ids)


async def count_late_cases(transaction: AsyncConnection, *, created_before: datetime) -> int:
    """How many cases were opened before a time and aren't done."""
    column = privacy_cases.c
    return int(
        await transaction.scalar(
            select(func.count())
            .select_from(privacy_cases)
            .where(column.state != State.DONE, column.create_time < created_before)
        )
        or 0
    )


async def _get(transaction: AsyncConnection, case_id: int) -> StoredCase:
    row = (await transaction.execute(select(*_COLUMNS).where(privacy_cases.c.id == case_id))).one()
    return StoredCase(*row)


async def find_subject_keys(
    transaction: AsyncConnection, store_uid: str, digests: Collection[bytes]
) -> dict[bytes, bytes]:
    """The keys that seal people's rows in backups, by what stands for the people."""
    column = subject_keys.c
    found: dict[bytes, bytes] = {}
    for some in _in_batches(sorted(digests)):
        rows = await transaction.execute(
            select(column.digest, column.key).where(
                column.store_uid == store_uid, column.digest.in_(some)
            )
        )
        found |= {bytes(digest): bytes(key) for digest, key in rows}
    return found


async def add_subject_keys(
    transaction: AsyncConnection, store_uid: str, keys: Mapping[bytes, bytes]
) -> None:
    """Keep keys of people who have none."""
    if keys:
        await transaction.execute(
            insert(subject_keys),
            [
                {"store_uid": store_uid, "digest": digest, "key": key}
                for digest, key in sorted(keys.items())
            ],
        )


async def destroy_subject_keys(
    transaction: AsyncConnection, store_uid: str, digests: Collection[bytes]
) -> int:
    """Destroy the keys of people: what they sealed can never be read again. Returns how many."""
    column = subject_keys.c
    count = 0
    for some in _in_batches(sorted(digests)):
        gone = await transaction.execute(
            delete(subject_keys).where(column.store_uid == store_uid, column.digest.in_(some))
        )
        count += gone.rowcount
    return count


def _in_batches(keys: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(keys), _KEYS_A_QUERY):
        yield keys[start : start + _KEYS_A_QUERY]
