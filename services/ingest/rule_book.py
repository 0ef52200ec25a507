"""Remembers the rules of stores, and notices when they change."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache

from sqlalchemy.ext.asyncio import AsyncConnection

from common.db import Database, database_now
from services.ingest import rules_repository as repository
from services.ingest.addresses import AddressStorage
from services.ingest.catalogue import schemas
from services.ingest.plans import PlanMode, Schema, SchemaNotValid
from services.ingest.rules import DEFAULT_RULES, Plan, StoreRules
from services.ingest.rules_repository import Settings, StoredPlan

log = logging.getLogger(__name__)

DEFAULT_SETTINGS = Settings(
    address_storage=AddressStorage.TRUNCATED,
    catalogue_mode=PlanMode.OFF,
    daily_quota=None,
    rejected_days=30,
)
"""Those of a store that has put none."""

# Whatever the store may not want to be stored, isn't.
_CAREFUL_RULES = StoreRules(address_storage=AddressStorage.OFF)

_LOOK_AGAIN_SECONDS = 1.0
# A change is committed some time after the time that it bears.
_OVERLAP = timedelta(seconds=20)
_MOST_STORES = 100_000
_STORES_A_QUERY = 500


class RuleBook:
    """The rules of the stores that have sent events to this process.

    One look a second, however many stores there are, tells what has changed.
    """

    def __init__(
        self, database: Database, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._monotonic = monotonic
        self._rules: dict[str, StoreRules] = {}
        self._revisions: dict[str, int] = {}
        self._looking = asyncio.Lock()
        self._look_again_at = 0.0
        self._seen_until: datetime | None = None

    async def rules_of(self, store_uids: Collection[str]) -> Mapping[str, StoreRules]:
        """The rules of these stores, and perhaps of others; none more than a second old."""
        if self._must_look(store_uids):
            async with self._looking:
                if self._must_look(store_uids):
                    await self._look(store_uids)
        return self._rules

    def current_rules_of(self, store_uids: Collection[str]) -> Mapping[str, StoreRules] | None:
        """The same, if the database need not be asked; else None."""
        return None if self._must_look(store_uids) else self._rules

    def remembered_rules_of(self, store_uids: Collection[str]) -> Mapping[str, StoreRules]:
        """What was known last, however old it is.

        Of a store that is unknown: no plans, no quota, and no address is stored.
        """
        return {uid: self._rules.get(uid, _CAREFUL_RULES) for uid in store_uids}

    def look_soon(self) -> None:
        """Something has changed, so what is known may be old already."""
        self._look_again_at = 0.0

    def _must_look(self, store_uids: Collection[str]) -> bool:
        return self._monotonic() >= self._look_again_at or not all(
            uid in self._rules for uid in store_uids
        )

    async def _look(self, store_uids: Collection[str]) -> None:
        began_at = self._monotonic()
        if len(self._rules) > _MOST_STORES:
            self._rules = {}
        async with self._database.read() as snapshot:
            now = await database_now(snapshot)
            changes = await repository.list_changes(
                snapshot, since=(self._seen_until or now) - _OVERLAP
            )
            unknown = {uid for uid in store_uids if uid not in self._rules}
            changed = {
                uid
                for uid, revision in changes.items()
                if uid in self._rules and self._revisions.get(uid) != revision
            }
            await self._load(snapshot, sorted(unknown | changed))
        self._seen_until = now
        self._look_again_at = began_at + _LOOK_AGAIN_SECONDS

    async def _load(self, snapshot: AsyncConnection, store_uids: Sequence[str]) -> None:
        for start in range(0, len(store_uids), _STORES_A_QUERY):
            asked = store_uids[start : start + _STORES_A_QUERY]
            settings = await repository.find_settings(snapshot, asked)
            plans = await repository.find_plans(snapshot, list(settings)) if settings else ()
            for uid in asked:
                found = settings.get(uid)
                self._revisions[uid] = found.revision if found else 0
                self._rules[uid] = (
                    _as_rules(found, [plan for plan in plans if plan.store_uid == uid])
                    if found
                    else DEFAULT_RULES
                )


def _as_rules(settings: Settings, stored_plans: Sequence[StoredPlan]) -> StoreRules:
    mode = PlanMode(settings.catalogue_mode)
    plans: dict[str, Plan] = {}
    if mode is not PlanMode.OFF:
        plans = {name: Plan(mode, schema) for name, schema in _catalogue().items()}
    for stored in stored_plans:
        plans.pop(stored.event_name, None)
        if stored.mode != PlanMode.OFF:
            try:
                schema = Schema(stored.schema)
            except SchemaNotValid:
                # It was valid when it was put. What a newer library refuses must not
                # keep the store's events out.
                log.exception("plan not usable", extra={"plan_uid": stored.uid})
                continue
            plans[stored.event_name] = Plan(PlanMode(stored.mode), schema)
    return StoreRules(
        address_storage=AddressStorage(settings.address_storage),
        daily_quota=settings.daily_quota,
        plans=plans,
    )


@cache
def _catalogue() -> Mapping[str, Schema]:
    return {name: Schema(text) for name, text in schemas().items()}
