"""Answers the RPCs by which a store says how its events are to be treated."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from common.db import Database, database_now
from common.errors import InvalidRequest, NotFound, WrongState
from common.page_token import PageTokens, read_page_size
from services.ingest import rules_repository as repository
from services.ingest.addresses import AddressStorage
from services.ingest.catalogue import ENTRIES, schema_of
from services.ingest.messages import check_store_uid, plan_message, settings_message
from services.ingest.plans import PlanMode, Schema, SchemaNotValid
from services.ingest.rule_book import DEFAULT_SETTINGS, RuleBook
from services.ingest.rules_repository import Settings, StoredPlan
from services.ingest.verdicts import TEXT_LENGTH
from shoptrail.ingest.v1 import ingest_pb2

_MOST_PLANS = 1000
_MOST_DAYS = 400
_RESTORABLE = timedelta(days=30)
_PAGE_SIZE, _LARGEST_PAGE_SIZE = 50, 200


class StoreRulesAnswers:
    """Answers requests for settings, plans and the catalogue."""

    def __init__(self, database: Database, *, rule_book: RuleBook, page_tokens: PageTokens) -> None:
        self._database = database
        self._rule_book = rule_book
        self._page_tokens = page_tokens

    async def get_settings(
        self, request: ingest_pb2.GetStoreSettingsRequest
    ) -> ingest_pb2.GetStoreSettingsResponse:
        """Answer `GetStoreSettings`."""
        store_uid = check_store_uid(request.store_uid)
        async with self._database.read() as snapshot:
            settings = await repository.get_settings(snapshot, store_uid)
        return ingest_pb2.GetStoreSettingsResponse(
            settings=settings_message(settings or DEFAULT_SETTINGS)
        )

    async def put_settings(
        self, request: ingest_pb2.PutStoreSettingsRequest
    ) -> ingest_pb2.PutStoreSettingsResponse:
        """Answer `PutStoreSettings`."""
        store_uid = check_store_uid(request.store_uid)
        settings = _read_settings(request)
        async with self._database.begin() as transaction:
            now = await database_now(transaction)
            await repository.lock_settings(transaction, store_uid, default=settings, now=now)
            await repository.put_settings(transaction, store_uid, settings)
            stored = await repository.get_settings(transaction, store_uid)
        self._rule_book.look_soon()
        return ingest_pb2.PutStoreSettingsResponse(settings=settings_message(stored or settings))

    async def put_plan(
        self, request: ingest_pb2.PutTrackingPlanRequest
    ) -> ingest_pb2.PutTrackingPlanResponse:
        """Answer `PutTrackingPlan`."""
        store_uid = check_store_uid(request.store_uid)
        mode, schema = _read_plan(request)
        async with self._database.begin() as transaction:
            now = await self._lock_rules(transaction, store_uid)
            plan = await repository.find_plan_of_event(transaction, store_uid, request.event_name)
            if plan is None:
                if await repository.count_plans(transaction, store_uid) >= _MOST_PLANS:
                    raise WrongState(
                        f"A store may have {_MOST_PLANS} plans, the deleted ones included.",
                        {"uid": store_uid},
                    )
                await repository.add_plan(
                    transaction,
                    store_uid,
                    event_name=request.event_name,
                    mode=mode,
                    schema=schema,
                    now=now,
                )
            else:
                await repository.change_plan(transaction, plan, mode=mode, schema=schema, now=now)
            put = await repository.find_plan_of_event(transaction, store_uid, request.event_name)
        self._rule_book.look_soon()
        assert put is not None  # noqa: S101 - it was written in this transaction
        return ingest_pb2.PutTrackingPlanResponse(plan=plan_message(put))

    async def get_plan(
        self, request: ingest_pb2.GetTrackingPlanRequest
    ) -> ingest_pb2.GetTrackingPlanResponse:
        """Answer `GetTrackingPlan`."""
        store_uid = check_store_uid(request.store_uid)
        if request.version < 0:
            raise InvalidRequest({"version": "must not be negative"})
        async with self._database.read() as snapshot:
            plan = await _find_plan(snapshot, store_uid, request.plan_uid, version=request.version)
        return ingest_pb2.GetTrackingPlanResponse(plan=plan_message(plan))

    async def list_plans(
        self, request: ingest_pb2.ListTrackingPlansRequest
    ) -> ingest_pb2.ListTrackingPlansResponse:
        """Answer `ListTrackingPlans`."""
        store_uid = check_store_uid(request.store_uid)
        page_size = read_page_size(
            request.page_size, default=_PAGE_SIZE, largest=_LARGEST_PAGE_SIZE
        )
        place = self._page_tokens.open(request)
        async with self._database.read() as snapshot:
            plans = await repository.list_plans(
                snapshot,
                store_uid,
                show_deleted=request.show_deleted,
                after_id=place[0] if place else 0,
                limit=page_size + 1,
            )
        response = ingest_pb2.ListTrackingPlansResponse(
            plans=[plan_message(plan) for plan in plans[:page_size]]
        )
        if len(plans) > page_size:
            response.next_page_token = self._page_tokens.seal(request, [plans[page_size - 1].id])
        return response

    async def delete_plan(
        self, request: ingest_pb2.DeleteTrackingPlanRequest
    ) -> ingest_pb2.DeleteTrackingPlanResponse:
        """Answer `DeleteTrackingPlan`."""
        store_uid = check_store_uid(request.store_uid)
        async with self._database.begin() as transaction:
            now = await self._lock_rules(transaction, store_uid)
            plan = await _find_plan(transaction, store_uid, request.plan_uid)
            if plan.delete_time is None:
                await repository.set_plan_deletion(
                    transaction, plan, delete_time=now, purge_time=now + _RESTORABLE, now=now
                )
                plan = await _find_plan(transaction, store_uid, request.plan_uid)
        self._rule_book.look_soon()
        return ingest_pb2.DeleteTrackingPlanResponse(plan=plan_message(plan))

    async def undelete_plan(
        self, request: ingest_pb2.UndeleteTrackingPlanRequest
    ) -> ingest_pb2.UndeleteTrackingPlanResponse:
        """Answer `UndeleteTrackingPlan`."""
        store_uid = check_store_uid(request.store_uid)
        async with self._database.begin() as transaction:
            now = await self._lock_rules(transaction, store_uid)
            plan = await _find_plan(transaction, store_uid, request.plan_uid)
            if plan.purge_time is not None and plan.purge_time <= now:
                raise _no_plan(request.plan_uid)
            if plan.delete_time is not None:
                await repository.set_plan_deletion(
                    transaction, plan, delete_time=None, purge_time=None, now=now
                )
                plan = await _find_plan(transaction, store_uid, request.plan_uid)
        self._rule_book.look_soon()
        return ingest_pb2.UndeleteTrackingPlanResponse(plan=plan_message(plan))

    async def _lock_rules(self, transaction: AsyncConnection, store_uid: str) -> datetime:
        """Keep others from changing the store's rules, and let replicas know that we do."""
        now = await database_now(transaction)
        await repository.lock_settings(transaction, store_uid, default=DEFAULT_SETTINGS, now=now)
        return now


def list_catalogue() -> ingest_pb2.ListCatalogueResponse:
    """Answer `ListCatalogue`."""
    return ingest_pb2.ListCatalogueResponse(
        entries=[
            ingest_pb2.CatalogueEntry(
                event_name=entry.name, aliases=entry.aliases, schema=schema_of(entry)
            )
            for entry in ENTRIES
        ]
    )


def _read_settings(given: ingest_pb2.PutStoreSettingsRequest) -> Settings:
    """The settings to put; raises `InvalidRequest` naming everything wrong at once."""
    violations: dict[str, str] = {}
    if given.address_storage not in (0, *AddressStorage):
        violations["address_storage"] = "must be OFF, TRUNCATED or FULL"
    if given.catalogue_mode not in (0, *PlanMode):
        violations["catalogue_mode"] = "must be OFF, OBSERVE or BLOCK"
    if given.HasField("daily_quota") and given.daily_quota < 0:
        violations["daily_quota"] = "must not be negative"
    if not 0 <= given.rejected_days <= _MOST_DAYS:
        violations["rejected_days"] = f"must be from 1 to {_MOST_DAYS}"
    if violations:
        raise InvalidRequest(violations)
    return Settings(
        address_storage=given.address_storage or DEFAULT_SETTINGS.address_storage,
        catalogue_mode=given.catalogue_mode or DEFAULT_SETTINGS.catalogue_mode,
        daily_quota=given.daily_quota if given.HasField("daily_quota") else None,
        rejected_days=given.rejected_days or DEFAULT_SETTINGS.rejected_days,
    )


def _read_plan(request: ingest_pb2.PutTrackingPlanRequest) -> tuple[PlanMode, bytes]:
    """The mode and the schema; raises `InvalidRequest` naming everything wrong at once."""
    violations: dict[str, str] = {}
    if not 1 <= len(request.event_name) <= TEXT_LENGTH:
        violations["event_name"] = f"must have 1 to {TEXT_LENGTH} characters"
    if request.mode not in set(map(int, PlanMode)):
        violations["mode"] = "must be OFF, OBSERVE or BLOCK"
    schema = request.schema.encode()
    try:
        Schema(schema)
    except SchemaNotValid as fault:
        violations["schema"] = str(fault)
    if violations:
        raise InvalidRequest(violations)
    return PlanMode(request.mode), schema


async def _find_plan(
    transaction: AsyncConnection, store_uid: str, plan_uid: str, *, version: int = 0
) -> StoredPlan:
    plan = await repository.find_plan(transaction, store_uid, plan_uid, version=version)
    if plan is None:
        raise _no_plan(plan_uid)
    return plan


def _no_plan(uid: str) -> NotFound:
    # It goes into the status, whose size HTTP/2 limits.
    return NotFound("The store has no such plan.", {"uid": uid[:64]})
