"""Keys' scheduled tasks: keys end or are rotated in time, and what was deleted leaves for good."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from common.cron.analyse_tables import analyse_tables_job
from common.cron.job import Batch, Job
from common.cron.trim_runs import trim_runs_job
from services.keys import repository
from services.keys.minting import Mint
from services.keys.peppers import Pepper
from services.keys.tables import metadata
from services.keys.trail import Action, Actor, Deed

_KEPT_AFTER_END = timedelta(days=90)
_SCHEDULED_OVERLAP = timedelta(days=7)
_BATCH_ROWS = 500
_BATCH_ROTATIONS = 100  # Each takes five statements.


def all_jobs(peppers: Sequence[Pepper]) -> list[Job]:
    """The jobs of Keys; `peppers` has the current one first."""
    mint = Mint(peppers)

    async def rotate_keys(transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
        return await _rotate_keys(transaction, mint, now=now)

    return [
        Job(
            name="expire-keys",
            description="Notes of keys whose expire_time has passed that they were revoked then.",
            period=timedelta(minutes=5),
            run_batch=_expire_keys,
        ),
        Job(
            name="rotate-keys",
            description=(
                "Makes the successors of publishable keys that are as old as their "
                f"rotate_period; the old ones work on for {_SCHEDULED_OVERLAP.days} days."
            ),
            period=timedelta(hours=1),
            run_batch=rotate_keys,
        ),
        Job(
            name="purge-deleted",
            description=(
                "Removes stores whose purge_time has passed, with their keys; keys whose "
                f"purge_time has passed; and keys that ended more than {_KEPT_AFTER_END.days} "
                "days ago."
            ),
            period=timedelta(hours=1),
            run_batch=_purge_deleted,
        ),
        analyse_tables_job(metadata),
        trim_runs_job(),
    ]


async def _expire_keys(transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
    found = await repository.lock_expired_keys(transaction, now=now, limit=_BATCH_ROWS)
    # Those that another has not revoked while we waited for them.
    expired = [key for key in found if key.revoke_time is None and key.has_ended(now)]
    if expired:
        await repository.end_expired_keys(transaction, expired)
        deeds = [
            Deed(Action.EXPIRE_KEY, store_uid=key.store_uid or None, key_uid=key.uid)
            for key in expired
        ]
        await repository.record(transaction, deeds, Actor("expire-keys"), now=now)
    return Batch(row_count=len(expired), done=not found)


async def _rotate_keys(transaction: AsyncConnection, mint: Mint, *, now: datetime) -> Batch:
    found = await repository.lock_keys_to_rotate(transaction, now=now, limit=_BATCH_ROTATIONS)
    due = [
        key for key in found if key.rotate_time and key.rotate_time <= now and key.is_working(now)
    ]
    deeds: list[Deed] = []
    for key in due:
        *_, recorded = await mint.rotate(
            transaction, key, overlap=_SCHEDULED_OVERLAP, expire_time=None, now=now
        )
        deeds += recorded
    await repository.record(transaction, deeds, Actor("rotate-keys"), now=now)
    return Batch(row_count=len(due), done=not found)


async def _purge_deleted(transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
    count, store_uids = await repository.purge_stores(transaction, now=now, limit=_BATCH_ROWS)
    deeds = [Deed(Action.PURGE_STORE, store_uid=uid) for uid in store_uids]
    ended_before = now - _KEPT_AFTER_END
    found = await repository.lock_keys_to_purge(
        transaction, now=now, ended_before=ended_before, limit=_BATCH_ROWS
    )
    due = [
        key
        for key in found
        if (key.purge_time and key.purge_time <= now)
        or (key.revoke_time and key.revoke_time < ended_before)
    ]
    if due:
        await repository.purge_keys(transaction, [key.id for key in due])
        deeds += [
            Deed(Action.PURGE_KEY, store_uid=key.store_uid or None, key_uid=key.uid) for key in due
        ]
    await repository.record(transaction, deeds, Actor("purge-deleted"), now=now)
    return Batch(row_count=count + len(due), done=not (count or found))
