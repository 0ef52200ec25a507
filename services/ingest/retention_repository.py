"""Ingest's SQL for how long events are kept.

Functions take the caller's transaction and never end it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.ingest.append import POSITION_BITS
from services.ingest.tables import events, expiry_cursors, retention_rules


@dataclass(frozen=True, slots=True)
class Rule:
    """For how many days a store keeps events of a name; 0 for ever."""

    store_uid: str
    event_name: str
    days: int
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Dated:
    """An event, as far as it tells whether its time is over."""

    id: int
    store_uid: str
    type: int
    name: str
    receive_time: datetime
    user_id: str
    anonymous_id: str


_DATED_COLUMNS = tuple(events.c[name] for name in Dated.__dataclass_fields__)
_RULE_COLUMNS = tuple(retention_rules.c[name] for name in Rule.__dataclass_fields__)


async def put_rule(transaction: AsyncConnection, rule: Rule, event_key: bytes) -> None:
    """Put a rule in the place of the one for the same events; all are looked at anew."""
    column = retention_rules.c
    await transaction.execute(
        delete(retention_rules).where(
            column.store_uid == rule.store_uid, column.event_key == event_key
        )
    )
    await transaction.execute(
        insert(retention_rules).values(
            store_uid=rule.store_uid,
            event_key=event_key,
            event_name=rule.event_name,
            days=rule.days,
            update_time=rule.update_time,
        )
    )
    await transaction.execute(delete(expiry_cursors))


async def count_rules(transaction: AsyncConnection, store_uid: str) -> int:
    """How many rules a store has."""
    column = retention_rules.c
    statement = select(func.count()).select_from(retention_rules)
    return int(await transaction.scalar(statement.where(column.store_uid == store_uid)) or 0)


async def list_rules(transaction: AsyncConnection, store_uid: str | None = None) -> list[Rule]:
    """A store's rules, or all there are, by store and name."""
    statement = select(*_RULE_COLUMNS).order_by(
        retention_rules.c.store_uid, retention_rules.c.event_name
    )
    if store_uid is not None:
        statement = statement.where(retention_rules.c.store_uid == store_uid)
    return [Rule(*row) for row in await transaction.execute(statement)]


async def get_expiry_position(transaction: AsyncConnection, shard: int) -> int:
    """Up to where nothing of the shard has to be looked at."""
    column = expiry_cursors.c
    found = await transaction.scalar(select(column.position).where(column.shard == shard))
    return int(found or 0)


async def set_expiry_position(transaction: AsyncConnection, shard: int, position: int) -> None:
    """Say up to where nothing of the shard has to be looked at."""
    await transaction.execute(delete(expiry_cursors).where(expiry_cursors.c.shard == shard))
    await transaction.execute(insert(expiry_cursors).values(shard=shard, position=position))


async def list_dated(
    transaction: AsyncConnection,
    shard: int,
    *,
    after: int,
    limit: int,
    store_uids: Collection[str] = (),
) -> list[Dated]:
    """The shard's events after a position, in order; only of some stores, if any are named."""
    base = shard << POSITION_BITS
    statement = (
        select(*_DATED_COLUMNS)
        .where(events.c.id > base + after, events.c.id < base + (1 << POSITION_BITS))
        .order_by(events.c.id)
        .limit(limit)
    )
    if store_uids:
        statement = statement.where(events.c.store_uid.in_(sorted(store_uids)))
    return [Dated(*row) for row in await transaction.execute(statement)]
