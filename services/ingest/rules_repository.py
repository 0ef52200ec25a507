"""Ingest's SQL for settings and plans. Functions take the caller's transaction and never end it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, func, insert, select, update
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from common.uid import is_uid, new_uid
from services.ingest.tables import store_settings, tracking_plan_versions, tracking_plans


@dataclass(frozen=True, slots=True)
class Settings:
    """A store's settings."""

    address_storage: int
    catalogue_mode: int
    daily_quota: int | None
    rejected_days: int
    update_time: datetime | None = None
    """None if they were never put, and no plan either."""
    revision: int = 0
    """Grows with each change of them or of a plan."""


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """A plan, with the schema of one of its versions if that was asked for."""

    id: int
    uid: str
    store_uid: str
    event_name: str
    mode: int
    version: int
    create_time: datetime
    update_time: datetime
    delete_time: datetime | None
    purge_time: datetime | None
    schema: bytes = b""


async def get_settings(transaction: AsyncConnection, store_uid: str) -> Settings | None:
    """The store's settings; None if it has put none."""
    return (await find_settings(transaction, [store_uid])).get(store_uid)


async def find_settings(
    transaction: AsyncConnection, store_uids: Sequence[str]
) -> Mapping[str, Settings]:
    """The settings of those of these stores that have put some."""
    names = Settings.__dataclass_fields__
    rows = await transaction.execute(
        select(store_settings.c.store_uid, *(store_settings.c[name] for name in names)).where(
            store_settings.c.store_uid.in_(store_uids)
        )
    )
    return {row[0]: Settings(*row[1:]) for row in rows}


async def lock_settings(
    transaction: AsyncConnection, store_uid: str, *, default: Settings, now: datetime
) -> None:
    """Make sure that the store has settings, and keep others from changing its rules.

    Raises the revision, by which replicas learn that something has changed.
    """
    row = {
        "store_uid": store_uid,
        "address_storage": default.address_storage,
        "catalogue_mode": default.catalogue_mode,
        "daily_quota": default.daily_quota,
        "rejected_days": default.rejected_days,
        "revision": 1,
        "update_time": now,
    }
    # One statement: to look first and insert then is how two who do the same deadlock.
    if transaction.dialect.name == "sqlite":
        upsert = sqlite.insert(store_settings).values(row)
        await transaction.execute(
            upsert.on_conflict_do_update(
                index_elements=["store_uid"],
                set_={"revision": store_settings.c.revision + 1, "update_time": now},
            )
        )
    else:
        await transaction.execute(
            mysql.insert(store_settings)
            .values(row)
            .on_duplicate_key_update(revision=store_settings.c.revision + 1, update_time=now)
        )


async def put_settings(transaction: AsyncConnection, store_uid: str, settings: Settings) -> None:
    """Replace the settings, which the caller has locked."""
    await transaction.execute(
        update(store_settings)
        .where(store_settings.c.store_uid == store_uid)
        .values(
            address_storage=settings.address_storage,
            catalogue_mode=settings.catalogue_mode,
            daily_quota=settings.daily_quota,
            rejected_days=settings.rejected_days,
        )
    )


async def list_changes(transaction: AsyncConnection, *, since: datetime) -> Mapping[str, int]:
    """The revisions of the stores whose settings or plans have changed since."""
    rows = await transaction.execute(
        select(store_settings.c.store_uid, store_settings.c.revision).where(
            store_settings.c.update_time >= since
        )
    )
    return {row[0]: row[1] for row in rows}


async def find_plan(
    transaction: AsyncConnection, store_uid: str, plan_uid: str, *, version: int = 0
) -> StoredPlan | None:
    """The store's plan, deleted or not, in its current or the given version."""
    if not is_uid("plan", plan_uid):
        return None
    statement = _select_plans(version).where(
        tracking_plans.c.store_uid == store_uid, tracking_plans.c.uid == plan_uid
    )
    row = (await transaction.execute(statement)).first()
    return None if row is None else _as_plan(row)


async def find_plan_of_event(
    transaction: AsyncConnection, store_uid: str, event_name: str
) -> StoredPlan | None:
    """The store's plan for the events of this name, deleted or not."""
    statement = _select_plans().where(
        tracking_plans.c.store_uid == store_uid,
        tracking_plans.c.event_key == _key_of(event_name),
    )
    row = (await transaction.execute(statement)).first()
    return None if row is None else _as_plan(row)


async def find_plans(
    transaction: AsyncConnection, store_uids: Sequence[str]
) -> Sequence[StoredPlan]:
    """All plans of these stores that aren't deleted, with their current schemas."""
    statement = _select_plans().where(
        tracking_plans.c.store_uid.in_(store_uids), tracking_plans.c.delete_time.is_(None)
    )
    return [_as_plan(row) for row in await transaction.execute(statement)]


async def list_plans(
    transaction: AsyncConnection,
    store_uid: str,
    *,
    show_deleted: bool,
    after_id: int,
    limit: int,
) -> Sequence[StoredPlan]:
    """A store's plans without their schemas, in the order in which they were made."""
    statement = (
        select(*(tracking_plans.c[name] for name in _PLAN_COLUMNS))
        .where(tracking_plans.c.store_uid == store_uid, tracking_plans.c.id > after_id)
        .order_by(tracking_plans.c.id)
        .limit(limit)
    )
    if not show_deleted:
        statement = statement.where(tracking_plans.c.delete_time.is_(None))
    return [StoredPlan(*row) for row in await transaction.execute(statement)]


async def count_plans(transaction: AsyncConnection, store_uid: str) -> int:
    """How many plans the store has, deleted ones included."""
    found = await transaction.scalar(
        select(func.count())
        .select_from(tracking_plans)
        .where(tracking_plans.c.store_uid == store_uid)
    )
    return int(found or 0)


async def add_plan(
    transaction: AsyncConnection,
    store_uid: str,
    *,
    event_name: str,
    mode: int,
    schema: bytes,
    now: datetime,
) -> None:
    """Make a plan in its first version. The store has none for these events."""
    uid = new_uid("plan")
    await transaction.execute(
        insert(tracking_plans).values(
            uid=uid,
            store_uid=store_uid,
            event_key=_key_of(event_name),
            event_name=event_name,
            mode=mode,
            version=1,
            create_time=now,
            update_time=now,
        )
    )
    plan_id = select(tracking_plans.c.id).where(tracking_plans.c.uid == uid).scalar_subquery()
    await _add_version(transaction, plan_id, version=1, schema=schema, now=now)


async def change_plan(
    transaction: AsyncConnection, plan: StoredPlan, *, mode: int, schema: bytes, now: datetime
) -> None:
    """Give the plan a mode and a schema, in a new version if it is another than the current."""
    version = plan.version if schema == plan.schema else plan.version + 1
    await transaction.execute(
        update(tracking_plans)
        .where(tracking_plans.c.id == plan.id)
        .values(mode=mode, version=version, update_time=now, delete_time=None, purge_time=None)
    )
    if version != plan.version:
        await _add_version(transaction, plan.id, version=version, schema=schema, now=now)


async def set_plan_deletion(
    transaction: AsyncConnection,
    plan: StoredPlan,
    *,
    delete_time: datetime | None,
    purge_time: datetime | None,
    now: datetime,
) -> None:
    """Mark the plan as deleted, or with both times None as not deleted."""
    await transaction.execute(
        update(tracking_plans)
        .where(tracking_plans.c.id == plan.id)
        .values(delete_time=delete_time, purge_time=purge_time, update_time=now)
    )


async def purge_plans(transaction: AsyncConnection, *, due_before: datetime, limit: int) -> int:
    """Remove deleted plans whose purge time has passed; returns how many those were."""
    due = (
        select(tracking_plans.c.id)
        .where(tracking_plans.c.delete_time.is_not(None), tracking_plans.c.purge_time < due_before)
        .order_by(tracking_plans.c.id)
        .limit(limit)
    )
    ids = (await transaction.execute(due)).scalars().all()
    if ids:
        await transaction.execute(
            delete(tracking_plan_versions).where(tracking_plan_versions.c.plan_id.in_(ids))
        )
        await transaction.execute(delete(tracking_plans).where(tracking_plans.c.id.in_(ids)))
    return len(ids)


async def _add_version(
    transaction: AsyncConnection, plan_id: Any, *, version: int, schema: bytes, now: datetime
) -> None:
    await transaction.execute(
        insert(tracking_plan_versions).values(
            plan_id=plan_id, version=version, schema=schema, create_time=now
        )
    )


_PLAN_COLUMNS = tuple(name for name in StoredPlan.__dataclass_fields__ if name != "schema")


def _select_plans(version: int = 0) -> Select[Any]:
    """Plans with the schema of this version, or if 0 of their current one."""
    columns = [tracking_plans.c[name] for name in _PLAN_COLUMNS]
    columns[_PLAN_COLUMNS.index("version")] = tracking_plan_versions.c.version
    return select(*columns, tracking_plan_versions.c.schema).join(
        tracking_plan_versions,
        (tracking_plan_versions.c.plan_id == tracking_plans.c.id)
        & (tracking_plan_versions.c.version == (version or tracking_plans.c.version)),
    )


def _as_plan(row: Sequence[Any]) -> StoredPlan:
    return StoredPlan(*row)


def _key_of(event_name: str) -> bytes:
    return hashlib.blake2b(event_name.encode(), digest_size=16).digest()
