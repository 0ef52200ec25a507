"""Keys' SQL. Functions take the caller's transaction and never end it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from common.uid import is_uid, new_uid
from services.keys.key_text import Kind
from services.keys.tables import api_keys, stores


@dataclass(frozen=True, slots=True)
class Store:
    """A store, as it is kept."""

    id: int
    uid: str
    display_name: str
    create_time: datetime
    update_time: datetime
    delete_time: datetime | None
    purge_time: datetime | None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, as it is kept; but for its hash, which nobody needs to see."""

    id: int
    uid: str
    store_uid: str
    """Empty for a key that belongs to no store."""
    kind: Kind
    display_name: str
    hint: str
    scopes: tuple[str, ...]
    create_time: datetime
    expire_time: datetime | None
    revoke_time: datetime | None


async def add_store(transaction: AsyncConnection, *, display_name: str, now: datetime) -> Store:
    """Make a store."""
    uid = new_uid("sto")
    await transaction.execute(
        insert(stores).values(uid=uid, display_name=display_name, create_time=now, update_time=now)
    )
    return _as_store((await transaction.execute(_select_stores().where(stores.c.uid == uid))).one())


async def find_store(transaction: AsyncConnection, uid: str, *, lock: bool = False) -> Store | None:
    """The store of this uid, also a deleted one; None if there is none.

    `lock` keeps others from changing it until the transaction ends.
    """
    if not is_uid("sto", uid):
        return None
    statement = _select_stores().where(stores.c.uid == uid)
    row = (await transaction.execute(statement.with_for_update() if lock else statement)).first()
    return None if row is None else _as_store(row)


async def list_stores(
    transaction: AsyncConnection,
    *,
    only_uid: str | None,
    show_deleted: bool,
    before_id: int | None,
    limit: int,
) -> list[Store]:
    """Stores, the latest first; if `only_uid` is given, at most that one."""
    statement = _select_stores().order_by(stores.c.id.desc()).limit(limit)
    if only_uid is not None:
        statement = statement.where(stores.c.uid == only_uid)
    if not show_deleted:
        statement = statement.where(stores.c.delete_time.is_(None))
    if before_id is not None:
        statement = statement.where(stores.c.id < before_id)
    return [_as_store(row) for row in await transaction.execute(statement)]


async def set_deletion(
    transaction: AsyncConnection,
    store: Store,
    *,
    delete_time: datetime | None,
    purge_time: datetime | None,
    now: datetime,
) -> Store:
    """Mark the store as deleted, or with both times None as not deleted."""
    await transaction.execute(
        update(stores)
        .where(stores.c.id == store.id)
        .values(delete_time=delete_time, purge_time=purge_time, update_time=now)
    )
    return _as_store(
        (await transaction.execute(_select_stores().where(stores.c.id == store.id))).one()
    )


async def add_key(
    transaction: AsyncConnection,
    *,
    store_id: int | None,
    kind: Kind,
    display_name: str,
    hint: str,
    pepper_version: int,
    hash: bytes,
    scopes: Sequence[str],
    expire_time: datetime | None,
    now: datetime,
) -> ApiKey:
    """Make a key."""
    uid = new_uid("key")
    await transaction.execute(
        insert(api_keys).values(
            uid=uid,
            store_id=store_id,
            kind=kind.value,
            display_name=display_name,
            hint=hint,
            pepper_version=pepper_version,
            hash=hash,
            scopes=" ".join(scopes),
            create_time=now,
            expire_time=expire_time,
        )
    )
    return _as_key((await transaction.execute(_select_keys().where(api_keys.c.uid == uid))).one())


async def find_key(transaction: AsyncConnection, uid: str) -> ApiKey | None:
    """The key of this uid, whether it works or not; None if there is none."""
    if not is_uid("key", uid):
        return None
    row = (await transaction.execute(_select_keys().where(api_keys.c.uid == uid))).first()
    return None if row is None else _as_key(row)


async def find_working_key(
    transaction: AsyncConnection, hashes: Sequence[bytes], *, now: datetime
) -> ApiKey | None:
    """The key with one of these hashes, if it works now."""
    statement = _select_keys().where(
        api_keys.c.hash.in_(hashes),
        api_keys.c.revoke_time.is_(None),
        or_(api_keys.c.expire_time.is_(None), api_keys.c.expire_time > now),
        stores.c.delete_time.is_(None),  # also where there is no store
    )
    row = (await transaction.execute(statement)).first()
    return None if row is None else _as_key(row)


async def list_keys(
    transaction: AsyncConnection, *, store_id: int | None, before_id: int | None, limit: int
) -> list[ApiKey]:
    """The keys of a store, or of none if `store_id` is None, the latest first."""
    statement = (
        _select_keys()
        .where(api_keys.c.store_id.is_not_distinct_from(store_id))
        .order_by(api_keys.c.id.desc())
        .limit(limit)
    )
    if before_id is not None:
        statement = statement.where(api_keys.c.id < before_id)
    return [_as_key(row) for row in await transaction.execute(statement)]


async def end_key(transaction: AsyncConnection, key: ApiKey, *, revoke_time: datetime) -> ApiKey:
    """Note when the key ended, unless it had ended before; returns it as it is now."""
    await transaction.execute(
        update(api_keys)
        .where(api_keys.c.id == key.id, api_keys.c.revoke_time.is_(None))
        .values(revoke_time=revoke_time)
    )
    return _as_key((await transaction.execute(_select_keys().where(api_keys.c.id == key.id))).one())


async def end_expired_keys(transaction: AsyncConnection, *, now: datetime, limit: int) -> int:
    """Note of keys that have expired that they ended then; returns how many those were."""
    expired = (
        select(api_keys.c.id)
        .where(api_keys.c.revoke_time.is_(None), api_keys.c.expire_time <= now)
        .order_by(api_keys.c.expire_time)
        .limit(limit)
    )
    ids = (await transaction.execute(expired)).scalars().all()
    if not ids:
        return 0
    ended = await transaction.execute(
        update(api_keys)
        .where(api_keys.c.id.in_(ids), api_keys.c.revoke_time.is_(None))
        .values(revoke_time=api_keys.c.expire_time)
    )
    return ended.rowcount


async def purge_ended_keys(
    transaction: AsyncConnection, *, ended_before: datetime, limit: int
) -> int:
    """Remove keys that ended before a time; returns how many those were."""
    due = (
        select(api_keys.c.id)
        .where(api_keys.c.revoke_time < ended_before)
        .order_by(api_keys.c.revoke_time)
        .limit(limit)
    )
    return await _delete_keys(transaction, due)


async def purge_stores(transaction: AsyncConnection, *, now: datetime, limit: int) -> int:
    """Remove stores whose purge time has come: their keys first, and once those are gone, them.

    Returns how many rows were removed; 0 when there is nothing more to do.
    """
    # Locked, so that no store is restored while its keys are being removed.
    due = (
        select(stores.c.id)
        .where(stores.c.delete_time.is_not(None), stores.c.purge_time <= now)
        .order_by(stores.c.purge_time)
        .limit(limit)
        .with_for_update()
    )
    ids = (await transaction.execute(due)).scalars().all()
    if not ids:
        return 0
    of_them = (
        select(api_keys.c.id)
        .where(api_keys.c.store_id.in_(ids))
        .order_by(api_keys.c.id)
        .limit(limit)
    )
    count = await _delete_keys(transaction, of_them)
    if count:
        return count
    purged = await transaction.execute(delete(stores).where(stores.c.id.in_(ids)))
    return purged.rowcount


async def _delete_keys(transaction: AsyncConnection, due: Select[tuple[int]]) -> int:
    # By primary key: a delete by range would lock gaps that inserts need.
    ids = (await transaction.execute(due)).scalars().all()
    if not ids:
        return 0
    deleted = await transaction.execute(delete(api_keys).where(api_keys.c.id.in_(ids)))
    return deleted.rowcount


def _select_stores() -> Select[Any]:
    return select(*(stores.c[name] for name in Store.__dataclass_fields__))


def _select_keys() -> Select[Any]:
    return select(
        api_keys.c.id,
        api_keys.c.uid,
        stores.c.uid.label("store_uid"),
        api_keys.c.kind,
        api_keys.c.display_name,
        api_keys.c.hint,
        api_keys.c.scopes,
        api_keys.c.create_time,
        api_keys.c.expire_time,
        api_keys.c.revoke_time,
    ).select_from(api_keys.outerjoin(stores))


def _as_store(row: Row[Any]) -> Store:
    return Store(**row._mapping)


def _as_key(row: Row[Any]) -> ApiKey:
    fields = dict(row._mapping)
    return ApiKey(
        **{
            **fields,
            "store_uid": fields["store_uid"] or "",
            "kind": Kind(fields["kind"]),
            "scopes": tuple(fields["scopes"].split()),
        }
    )
