"""Erases people again whom a restored backup has brought back."""

from __future__ import annotations

from datetime import datetime
from itertools import groupby

from sqlalchemy.ext.asyncio import AsyncConnection

from common.cron.job import Batch, RunBatch
from common.uid import parse_uid
from services.ingest import append, rejection_repository, repository
from services.ingest import subject_repository as people
from services.ingest.overwriting import ERASED, overwrite
from services.ingest.people_index import index_batch
from services.ingest.subjects import SubjectDigests

_PEOPLE = 100
_EVENTS = 100
_REJECTED = 500


def erase_again(digests: SubjectDigests) -> RunBatch:
    """Batches of a job that looks for who was erased, by the keyed hashes of their ids alone.

    The cursor is the last store and digest that nothing was found of any more.
    """

    async def run_batch(transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
        for shard, _ in await repository.list_heads(transaction):
            if await index_batch(transaction, digests, shard):
                return Batch(row_count=0, done=False, cursor=cursor)
        after = None
        if cursor:
            last_store, _, last_digest = cursor.partition(" ")
            after = (last_store, bytes.fromhex(last_digest))
        erased = await people.list_erased(transaction, after=after, limit=_PEOPLE)
        for store_uid, digest in erased:
            count = await _erase_some(transaction, digests, store_uid, digest, now=now)
            if count:
                return Batch(row_count=count, done=False, cursor=cursor)
            cursor = f"{store_uid} {digest.hex()}"
        return Batch(row_count=0, done=len(erased) < _PEOPLE, cursor=cursor)

    return run_batch


async def _erase_some(
    transaction: AsyncConnection,
    digests: SubjectDigests,
    store_uid: str,
    digest: bytes,
    *,
    now: datetime,
) -> int:
    """Erase some events of a person; returns how many rows that was, 0 when none are left."""
    store = parse_uid("sto", store_uid)
    ids = await people.find_event_ids(transaction, store_uid, [digest], limit=_EVENTS)
    count = 0
    for shard, of_shard in groupby(ids, key=lambda one: one >> append.POSITION_BITS):
        log = await append.lock_log(transaction, shard)
        mine = [
            event
            for event in await people.get_events(transaction, list(of_shard))
            if digests.is_among(
                [digest],
                store,
                event.type,
                user_id=event.user_id,
                anonymous_id=event.anonymous_id,
                payload=event.payload,
            )
        ]
        if mine:
            found = await overwrite(
                transaction, digests, store_uid, mine, log=log, mark=ERASED, now=now
            )
            count += found["events"]
    texts = await people.list_rejected_texts(transaction, store_uid, after=0, limit=_REJECTED)
    rejected = [
        text.id
        for text in texts
        if digests.is_among(
            [digest],
            store,
            text.type,
            user_id=text.user_id,
            anonymous_id=text.anonymous_id,
            payload=text.payload,
        )
    ]
    await rejection_repository.delete_rejections(transaction, rejected)
    return count + len(rejected)
