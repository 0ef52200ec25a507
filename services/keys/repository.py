"""Keys' SQL. Functions take the caller's transaction and never end it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    bindparam,
    case,
    delete,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from common.uid import is_uid, new_uid
from services.keys.key_text import Kind
from services.keys.tables import api_keys, key_event_heads, key_events, key_uses, stores
from services.keys.trail import START, Action, Actor, Deed, Entry, Outcome, continue_trail

_HEAD = 1


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
    store_id: int | None
    store_uid: str
    """Empty for a key that belongs to no store."""
    kind: Kind
    display_name: str
    hint: str
    scopes: tuple[str, ...]
    pepper_version: int
    create_time: datetime
    expire_time: datetime | None
    revoke_time: datetime | None
    """When it ended, for whatever reason."""
    delete_time: datetime | None
    purge_time: datetime | None
    successor_uid: str | None
    rotate_seconds: int | None
    rotate_time: datetime | None
    """When it is rotated by itself; None if never, or it was."""
    allowed_origins: tuple[str, ...]
    session_epoch: int
    """How often its sessions were ended."""
    use_time: datetime | None
    use_origin: str
    use_sdk: str
    expose_time: datetime | None

    def is_working(self, now: datetime) -> bool:
        """Whether the key opens its store, if that isn't deleted."""
        return not (self.has_ended(now) or self.delete_time)

    def has_ended(self, now: datetime) -> bool:
        """Whether the key was revoked or has expired."""
        return bool(self.revoke_time or (self.expire_time and self.expire_time <= now))


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that is to be made."""

    uid: str
    kind: Kind
    display_name: str
    hint: str
    pepper_version: int
    hash: bytes
    scopes: Sequence[str]
    expire_time: datetime | None = None
    allowed_origins: Sequence[str] = ()
    rotate_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """That a key was used, or came in a browser's request though it must stay secret."""

    key_uid: str
    use_time: datetime | None
    origin: str
    sdk: str
    expose_time: datetime | None


@dataclass(frozen=True, slots=True)
class Revision:
    """A change to a key, or to a store and so to all its keys."""

    position: int
    store_uid: str | None
    key_uid: str | None


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


async def rename_store(
    transaction: AsyncConnection, store: Store, *, display_name: str, now: datetime
) -> Store:
    """Give the store another name."""
    await transaction.execute(
        update(stores)
        .where(stores.c.id == store.id)
        .values(display_name=display_name, update_time=now)
    )
    return _as_store(
        (await transaction.execute(_select_stores().where(stores.c.id == store.id))).one()
    )


async def add_key(
    transaction: AsyncConnection, new: NewKey, *, store_id: int | None, now: datetime
) -> ApiKey:
    """Make a key."""
    age = new.rotate_seconds
    await transaction.execute(
        insert(api_keys).values(
            uid=new.uid,
            store_id=store_id,
            kind=new.kind.value,
            display_name=new.display_name,
            hint=new.hint,
            pepper_version=new.pepper_version,
            hash=new.hash,
            scopes=" ".join(new.scopes),
            create_time=now,
            expire_time=new.expire_time,
            allowed_origins=" ".join(new.allowed_origins),
            rotate_seconds=age,
            rotate_time=now + timedelta(seconds=age) if age else None,
        )
    )
    key = await _get_key(transaction, api_keys.c.uid == new.uid)
    await transaction.execute(insert(key_uses).values(key_id=key.id, origin="", sdk=""))
    return key


async def find_key(transaction: AsyncConnection, uid: str, *, lock: bool = False) -> ApiKey | None:
    """The key of this uid, whether it works or not; None if there is none.

    `lock` keeps others from changing it until the transaction ends.
    """
    if not is_uid("key", uid):
        return None
    if lock:  # By itself: with the join, the store would be locked too.
        of_uid = select(api_keys.c.id).where(api_keys.c.uid == uid).with_for_update()
        await transaction.execute(of_uid)
    row = (await transaction.execute(_select_keys().where(api_keys.c.uid == uid))).first()
    return None if row is None else _as_key(row)


async def change_key(
    transaction: AsyncConnection, key: ApiKey, values: Mapping[str, Any]
) -> ApiKey:
    """Write these columns of the key; returns it as it is now."""
    await transaction.execute(update(api_keys).where(api_keys.c.id == key.id).values(**values))
    return await _get_key(transaction, api_keys.c.id == key.id)


async def find_working_key(
    transaction: AsyncConnection, hashes: Sequence[bytes], *, now: datetime
) -> ApiKey | None:
    """The key with one of these hashes, if it works now."""
    return await _find_working_key(transaction, api_keys.c.hash.in_(hashes), now=now)


async def find_working_key_by_uid(
    transaction: AsyncConnection, uid: str, *, now: datetime
) -> ApiKey | None:
    """The key of this uid, if it works now."""
    if not is_uid("key", uid):
        return None
    return await _find_working_key(transaction, api_keys.c.uid == uid, now=now)


async def _find_working_key(
    transaction: AsyncConnection, condition: ColumnElement[bool], *, now: datetime
) -> ApiKey | None:
    statement = _select_keys().where(
        condition,
        api_keys.c.revoke_time.is_(None),
        or_(api_keys.c.expire_time.is_(None), api_keys.c.expire_time > now),
        api_keys.c.delete_time.is_(None),
        stores.c.delete_time.is_(None),  # also where there is no store
    )
    row = (await transaction.execute(statement)).first()
    return None if row is None else _as_key(row)


async def list_keys(
    transaction: AsyncConnection,
    *,
    store_id: int | None,
    show_deleted: bool,
    before_id: int | None,
    limit: int,
) -> list[ApiKey]:
    """The keys of a store, or of none if `store_id` is None, the latest first."""
    statement = (
        _select_keys()
        .where(api_keys.c.store_id.is_not_distinct_from(store_id))
        .order_by(api_keys.c.id.desc())
        .limit(limit)
    )
    if not show_deleted:
        statement = statement.where(api_keys.c.delete_time.is_(None))
    if before_id is not None:
        statement = statement.where(api_keys.c.id < before_id)
    return [_as_key(row) for row in await transaction.execute(statement)]


async def lock_expired_keys(
    transaction: AsyncConnection, *, now: datetime, limit: int
) -> list[ApiKey]:
    """Keys that have expired, without a note that they ended, those first that did first."""
    return await _lock_keys(
        transaction,
        select(api_keys.c.id)
        .where(api_keys.c.revoke_time.is_(None), api_keys.c.expire_time <= now)
        .order_by(api_keys.c.expire_time)
        .limit(limit),
    )


async def end_expired_keys(transaction: AsyncConnection, expired: Sequence[ApiKey]) -> None:
    """Note of these keys that they ended when they expired."""
    await transaction.execute(
        update(api_keys)
        .where(api_keys.c.id.in_([key.id for key in expired]))
        .values(revoke_time=api_keys.c.expire_time)
    )


async def lock_keys_to_rotate(
    transaction: AsyncConnection, *, now: datetime, limit: int
) -> list[ApiKey]:
    """Working keys, of stores that aren't deleted, whose time to be rotated has come."""
    return await _lock_keys(
        transaction,
        select(api_keys.c.id)
        .join(stores)
        .where(
            api_keys.c.rotate_time <= now,
            api_keys.c.revoke_time.is_(None),
            or_(api_keys.c.expire_time.is_(None), api_keys.c.expire_time > now),
            api_keys.c.delete_time.is_(None),
            stores.c.delete_time.is_(None),
        )
        .order_by(api_keys.c.rotate_time)
        .limit(limit),
    )


async def lock_keys_to_purge(
    transaction: AsyncConnection, *, now: datetime, ended_before: datetime, limit: int
) -> list[ApiKey]:
    """Keys whose purge time has come, and keys that ended before a time."""
    deleted = select(api_keys.c.id).where(api_keys.c.purge_time <= now)
    ended = select(api_keys.c.id).where(api_keys.c.revoke_time < ended_before)
    found = await _lock_keys(
        transaction, deleted.order_by(api_keys.c.purge_time).limit(limit)
    ) + await _lock_keys(transaction, ended.order_by(api_keys.c.revoke_time).limit(limit))
    return list({key.id: key for key in found}.values())


async def purge_keys(transaction: AsyncConnection, ids: Sequence[int]) -> None:
    """Remove these keys and what is known of their use."""
    # By primary key: a delete by range would lock gaps that inserts need.
    await transaction.execute(delete(key_uses).where(key_uses.c.key_id.in_(ids)))
    await transaction.execute(delete(api_keys).where(api_keys.c.id.in_(ids)))


async def purge_stores(
    transaction: AsyncConnection, *, now: datetime, limit: int
) -> tuple[int, list[str]]:
    """Remove stores whose purge time has come: their keys first, and once those are gone, them.

    Returns how many rows were removed, 0 when there is nothing more to do, and the
    uids of the stores among them.
    """
    # Locked, so that no store is restored while its keys are being removed.
    due = (
        select(stores.c.id, stores.c.uid)
        .where(stores.c.delete_time.is_not(None), stores.c.purge_time <= now)
        .order_by(stores.c.purge_time)
        .limit(limit)
        .with_for_update()
    )
    uids = {row.id: row.uid for row in await transaction.execute(due)}
    if not uids:
        return 0, []
    of_them = (
        select(api_keys.c.id)
        .where(api_keys.c.store_id.in_(uids))
        .order_by(api_keys.c.id)
        .limit(limit)
    )
    key_ids = (await transaction.execute(of_them)).scalars().all()
    if key_ids:
        await purge_keys(transaction, key_ids)
        return len(key_ids), []
    await transaction.execute(delete(stores).where(stores.c.id.in_(uids)))
    return len(uids), list(uids.values())


async def note_uses(
    transaction: AsyncConnection, uses: Sequence[Use], *, exposed_before: datetime
) -> list[Deed]:
    """Note when and by what keys were used; what is older than what is noted changes nothing.

    Returns the deeds to put on record: the keys that were exposed, and had not been since
    `exposed_before`. Uses of unknown keys are passed over.
    """
    by_uid = {use.key_uid: use for use in uses}
    known = (
        await transaction.execute(
            select(api_keys.c.id, api_keys.c.uid, stores.c.uid.label("store_uid"))
            .select_from(api_keys.outerjoin(stores))
            .where(api_keys.c.uid.in_(by_uid))
            .order_by(api_keys.c.id)
        )
    ).all()
    if not known:
        return []
    ids = [row.id for row in known]
    noted = select(key_uses.c.key_id, key_uses.c.expose_time).where(key_uses.c.key_id.in_(ids))
    last_exposed = {
        row.key_id: row.expose_time
        for row in await transaction.execute(noted.order_by(key_uses.c.key_id).with_for_update())
    }
    if lacking := [id for id in ids if id not in last_exposed]:
        # Keys from before uses were noted.
        await transaction.execute(
            insert(key_uses), [{"key_id": id, "origin": "", "sdk": ""} for id in lacking]
        )
    used, exposed, deeds = [], [], []
    for row in known:
        use, last = by_uid[row.uid], last_exposed.get(row.id)
        if use.use_time:
            used.append(
                {
                    "of_key": row.id,
                    "new_time": use.use_time,
                    "new_origin": use.origin,
                    "new_sdk": use.sdk,
                }
            )
        if use.expose_time and (last is None or last < use.expose_time):
            exposed.append({"of_key": row.id, "new_time": use.expose_time})
        if use.expose_time and (last is None or last < exposed_before):
            deeds.append(
                Deed(
                    Action.EXPOSE_KEY,
                    outcome=Outcome.REFUSED,
                    store_uid=row.store_uid,
                    key_uid=row.uid,
                    detail=use.origin,
                )
            )
    if used:
        await transaction.execute(_NOTE_USE, used)
    if exposed:
        await transaction.execute(_NOTE_EXPOSURE, exposed)
    return deeds


async def record(
    transaction: AsyncConnection, deeds: Sequence[Deed], actor: Actor, *, now: datetime
) -> None:
    """Put deeds at the end of the trail.

    Comes last in a transaction: until that ends, no other can record anything, so that
    positions come in the order of commits.
    """
    if not deeds:
        return
    position, hash = await _lock_head(transaction)
    entries = list(continue_trail(deeds, actor, now=now, position=position, hash=hash))
    names = Entry.__dataclass_fields__
    await transaction.execute(
        insert(key_events), [{name: getattr(entry, name) for name in names} for entry in entries]
    )
    await transaction.execute(
        update(key_event_heads)
        .where(key_event_heads.c.id == _HEAD)
        .values(position=entries[-1].position, hash=entries[-1].hash)
    )


async def get_head(transaction: AsyncConnection) -> int:
    """The position of the trail's last entry; 0 if it has none."""
    position = select(key_event_heads.c.position).where(key_event_heads.c.id == _HEAD)
    return await transaction.scalar(position) or 0


async def list_revisions(transaction: AsyncConnection, *, after: int, limit: int) -> list[Revision]:
    """What was done to stores and keys after a position, in order."""
    return [
        Revision(row.position, store_uid=row.store_uid, key_uid=row.key_uid)
        for row in await transaction.execute(
            select(key_events.c.position, key_events.c.store_uid, key_events.c.key_uid)
            .where(key_events.c.position > after)
            .order_by(key_events.c.position)
            .limit(limit)
        )
    ]


async def list_purged(
    transaction: AsyncConnection, *, after: int, limit: int
) -> list[tuple[int, str]]:
    """The stores that were purged after a position, with where that stands, in order."""
    rows = await transaction.execute(
        select(key_events.c.position, key_events.c.store_uid)
        .where(key_events.c.position > after, key_events.c.action == Action.PURGE_STORE)
        .order_by(key_events.c.position)
        .limit(limit)
    )
    return [(position, store_uid) for position, store_uid in rows]


async def list_entries(
    transaction: AsyncConnection, *, store_uid: str | None, before: int | None, limit: int
) -> list[Entry]:
    """What was done to a store and its keys, or to keys of none, the latest first."""
    statement = (
        _select_entries()
        .where(
            key_events.c.store_uid.is_(None)
            if store_uid is None
            else key_events.c.store_uid == store_uid
        )
        .order_by(key_events.c.position.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(key_events.c.position < before)
    return [_as_entry(row) for row in await transaction.execute(statement)]


async def read_trail(transaction: AsyncConnection, *, start: int, limit: int) -> list[Entry]:
    """The entries from a position on, in order."""
    statement = (
        _select_entries()
        .where(key_events.c.position >= start)
        .order_by(key_events.c.position)
        .limit(limit)
    )
    return [_as_entry(row) for row in await transaction.execute(statement)]


_NOTE_USE = (
    update(key_uses)
    .where(
        key_uses.c.key_id == bindparam("of_key"),
        or_(key_uses.c.use_time.is_(None), key_uses.c.use_time < bindparam("new_time")),
    )
    .values(
        use_time=bindparam("new_time"),
        origin=case(
            (bindparam("new_origin") == "", key_uses.c.origin), else_=bindparam("new_origin")
        ),
        sdk=case((bindparam("new_sdk") == "", key_uses.c.sdk), else_=bindparam("new_sdk")),
    )
)
_NOTE_EXPOSURE = (
    update(key_uses)
    .where(key_uses.c.key_id == bindparam("of_key"))
    .values(expose_time=bindparam("new_time"))
)


async def _lock_head(transaction: AsyncConnection) -> tuple[int, bytes]:
    head = (
        select(key_event_heads.c.position, key_event_heads.c.hash)
        .where(key_event_heads.c.id == _HEAD)
        .with_for_update()
    )
    row = (await transaction.execute(head)).first()
    if row is None:
        try:
            async with transaction.begin_nested():
                await transaction.execute(
                    insert(key_event_heads).values(id=_HEAD, position=0, hash=START)
                )
        except IntegrityError:
            pass  # Another recorded the very first entry meanwhile.
        row = (await transaction.execute(head)).one()
    return row.position, row.hash


async def _lock_keys(transaction: AsyncConnection, found: Select[tuple[int]]) -> list[ApiKey]:
    ids = (await transaction.execute(found)).scalars().all()
    if not ids:
        return []
    locked = select(api_keys.c.id).where(api_keys.c.id.in_(ids)).order_by(api_keys.c.id)
    await transaction.execute(locked.with_for_update())
    # Read again: another may have changed them before they were locked.
    keys = _select_keys().where(api_keys.c.id.in_(ids)).order_by(api_keys.c.id)
    return [_as_key(row) for row in await transaction.execute(keys)]


async def _get_key(transaction: AsyncConnection, condition: ColumnElement[bool]) -> ApiKey:
    return _as_key((await transaction.execute(_select_keys().where(condition))).one())


def _select_entries() -> Select[Any]:
    return select(*(key_events.c[name] for name in Entry.__dataclass_fields__))


def _as_entry(row: Row[Any]) -> Entry:
    fields = dict(row._mapping)
    return Entry(
        **{
            **fields,
            "action": Action(fields["action"]),
            "outcome": Outcome(fields["outcome"]),
        }
    )


def _select_stores() -> Select[Any]:
    return select(*(stores.c[name] for name in Store.__dataclass_fields__))


def _select_keys() -> Select[Any]:
    return select(
        api_keys.c.id,
        api_keys.c.uid,
        api_keys.c.store_id,
        stores.c.uid.label("store_uid"),
        api_keys.c.kind,
        api_keys.c.display_name,
        api_keys.c.hint,
        api_keys.c.scopes,
        api_keys.c.pepper_version,
        api_keys.c.create_time,
        api_keys.c.expire_time,
        api_keys.c.revoke_time,
        api_keys.c.delete_time,
        api_keys.c.purge_time,
        api_keys.c.successor_uid,
        api_keys.c.rotate_seconds,
        api_keys.c.rotate_time,
        api_keys.c.allowed_origins,
        api_keys.c.session_epoch,
        key_uses.c.use_time,
        key_uses.c.origin.label("use_origin"),
        key_uses.c.sdk.label("use_sdk"),
        key_uses.c.expose_time,
    ).select_from(
        api_keys.outerjoin(stores).outerjoin(key_uses, key_uses.c.key_id == api_keys.c.id)
    )


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
            "allowed_origins": tuple((fields["allowed_origins"] or "").split()),
            "session_epoch": fields["session_epoch"] or 0,
            "use_origin": fields["use_origin"] or "",
            "use_sdk": fields["use_sdk"] or "",
        }
    )
