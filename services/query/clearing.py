"""Removes what is left of a store that was purged."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from common.cron.job import Batch
from common.db import delete_some, note_untidy
from services.query import change_repository, repository
from services.query.tables import FIGURES, generations, recorded_events, silent_events

_DELETED = 500


async def clear_store(
    transaction: AsyncConnection, store_uid: str, *, cursor: str, now: datetime
) -> Batch | None:
    """Removes the store's figures, once the listing has followed Ingest and names nobody any more.

    What stays is the remnants in the listing, which has no gaps either.
    """
    if await _names_people(transaction, store_uid):
        return None
    live = await repository.find_live_generation(transaction)
    await repository.lock_generation(transaction, live)
    known = (await transaction.execute(select(generations.c.generation))).scalars().all()
    for table in FIGURES:
        for generation in (change_repository.CARRIED, *sorted(known)):
            condition = and_(table.c.generation == generation, table.c.store_uid == store_uid)
            if count := await delete_some(transaction, table, condition, limit=_DELETED):
                await note_untidy(transaction)
                return Batch(count, done=False, cursor=table.name)
    of_store = silent_events.c.store_uid == store_uid
    return Batch(await delete_some(transaction, silent_events, of_store, limit=_DELETED), done=True)


async def _names_people(transaction: AsyncConnection, store_uid: str) -> bool:
    column = recorded_events.c
    for condition in (
        column.user_id > "",
        and_(column.user_id == "", column.anonymous_id > ""),  # Each is a range of an index.
    ):
        found = select(column.id).where(column.store_uid == store_uid, condition).limit(1)
        if await transaction.scalar(found) is not None:
            return True
    return False
