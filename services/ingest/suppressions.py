"""Keeps the events of people out of whom a store wants no more."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from common.uid import parse_uid
from services.ingest import subject_repository as repository
from services.ingest.append import Key, NewEvent
from services.ingest.repository import RejectedEvent
from services.ingest.subjects import SubjectDigests

NOBODY: frozenset[Key | str] = frozenset()

LIFTED_KEPT_DAYS = 7
"""For how long a suppression that was lifted is remembered, so that all replicas learn of it."""

# Well before that is over, what is known is read anew.
_LOAD_ALL_SECONDS = 24 * 3600.0


class Suppressions:
    """What a process knows of the suppressions of one shard.

    Whoever appends holds the lock of the shard's head, and reads there at which revision
    the suppressions are. So what is known is exact and, while nothing changes, costs nothing.
    """

    def __init__(
        self,
        shard: int,
        digests: SubjectDigests,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shard = shard
        self._digests = digests
        self._monotonic = monotonic
        self._by_store: dict[bytes, set[bytes]] = {}
        self._revision: int | None = None
        self._load_all_at = 0.0

    async def find(
        self,
        transaction: AsyncConnection,
        revision: int,
        events: Sequence[NewEvent],
        rejected: Sequence[RejectedEvent],
    ) -> frozenset[Key | str]:
        """Which of these are suppressed: events by key, rejected ones by uid.

        `revision` was read under the lock of the shard's head.
        """
        if revision != self._revision:
            await self._load(transaction, revision)
        if not self._by_store:
            return NOBODY
        found: set[Key | str] = set()
        for event in events:
            of_store = self._by_store.get(event.store_uid)
            if of_store and self._digests.is_among(
                of_store,
                event.store_uid,
                event.type,
                user_id=event.user_id,
                anonymous_id=event.anonymous_id,
                payload=event.payload,
            ):
                found.add(event.key)
        for rejection in rejected:
            store = parse_uid("sto", rejection.store_uid)
            of_store = self._by_store.get(store)
            if of_store and self._digests.is_among(
                of_store,
                store,
                rejection.type,
                user_id=rejection.user_id,
                anonymous_id=rejection.anonymous_id,
                payload=rejection.payload,
            ):
                found.add(rejection.uid)
        return frozenset(found)

    async def _load(self, transaction: AsyncConnection, revision: int) -> None:
        known = self._revision
        if self._monotonic() >= self._load_all_at:
            known = None
        changes = await repository.list_suppressions(
            transaction, shard=self._shard, after_revision=known
        )
        if known is None:
            self._by_store = {}
            self._load_all_at = self._monotonic() + _LOAD_ALL_SECONDS
        for change in changes:
            of_store = self._by_store.setdefault(change.store, set())
            (of_store.add if change.active else of_store.discard)(change.digest)
            if not of_store:
                del self._by_store[change.store]
        self._revision = revision
