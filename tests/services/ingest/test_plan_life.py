"""Tracking plans through any sequence of put, delete, undelete, purge and list, beside a model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select, update

from common.db import Database, database_now
from services.ingest.jobs import ingest_jobs
from services.ingest.subjects import SubjectDigests
from services.ingest.tables import tracking_plan_versions, tracking_plans
from shoptrail.ingest.v1 import ingest_pb2 as pb
from shoptrail.ingest.v1 import tracking_plan_pb2
from tests.conftest import NOBODY
from tests.services.ingest.conftest import ALL, STORE, Stub

_Result = TypeVar("_Result")

RESTORABLE_DAYS = 30
NAMES = ("Paid", "Signed Up")


@dataclass(slots=True)
class Expected:
    """A plan as it should be. Purged ones aren't kept."""

    uid: str
    days_left: int | None = None
    """Until it is purged; None if it isn't deleted."""

    @property
    def is_over(self) -> bool:
        return self.days_left is not None and self.days_left <= 0


class PlansLife(RuleBasedStateMachine):
    """Does to Ingest, over gRPC, what it does to the model, and compares."""

    uids: Bundle[str] = Bundle("uids")

    def __init__(self, ingest: Stub, database: Database, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._ingest = ingest
        self._database = database
        self._loop = loop
        self._expected: dict[str, Expected] = {}
        self._await(self._clear())

    def _await(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _clear(self) -> None:
        async with self._database.begin() as transaction:
            for table in (tracking_plan_versions, tracking_plans):
                await transaction.execute(table.delete())

    def _find(self, uid: str) -> Expected | None:
        return next((one for one in self._expected.values() if one.uid == uid), None)

    @rule(
        target=uids,
        name=st.sampled_from(NAMES),
        schema=st.sampled_from(["{}", '{"type": "object"}']),
    )
    def put(self, name: str, schema: str) -> str:
        request = pb.PutTrackingPlanRequest(
            store_uid=STORE,
            event_name=name,
            mode=tracking_plan_pb2.PLAN_MODE_OFF,
            schema=schema,
        )
        plan = self._await(self._put(request))
        known = self._expected.get(name)
        # A deleted one is there again, with all versions that it had.
        assert known is None or plan.uid == known.uid
        self._expected[name] = Expected(plan.uid)
        return plan.uid

    async def _put(self, request: pb.PutTrackingPlanRequest) -> tracking_plan_pb2.TrackingPlan:
        return (await self._ingest.PutTrackingPlan(request, timeout=5, metadata=ALL)).plan

    @rule(uid=uids)
    def delete(self, uid: str) -> None:
        expected = self._find(uid)
        if expected and expected.days_left is None:
            expected.days_left = RESTORABLE_DAYS
        request = pb.DeleteTrackingPlanRequest(store_uid=STORE, plan_uid=uid)
        deleted = self._await(_is_done(self._ingest.DeleteTrackingPlan, request))
        assert deleted == (expected is not None)

    @rule(uid=uids)
    def undelete(self, uid: str) -> None:
        expected = self._find(uid)
        possible = expected is not None and not expected.is_over
        if expected and possible:
            expected.days_left = None
        request = pb.UndeleteTrackingPlanRequest(store_uid=STORE, plan_uid=uid)
        assert self._await(_is_done(self._ingest.UndeleteTrackingPlan, request)) == possible

    @rule(days=st.sampled_from([15, 31]))
    def let_time_pass(self, days: int) -> None:
        self._await(self._set_back(days))
        for expected in self._expected.values():
            if expected.days_left is not None:
                expected.days_left -= days

    async def _set_back(self, days: int) -> None:
        """Plans go by the database's clock, so it is they that are moved."""
        column = tracking_plans.c
        async with self._database.begin() as transaction:
            rows = await transaction.execute(
                select(column.id, column.delete_time, column.purge_time).where(
                    column.delete_time.is_not(None)
                )
            )
            for plan_id, *times in rows.all():
                deleted, purged = (time - timedelta(days=days) for time in times)
                await transaction.execute(
                    update(tracking_plans)
                    .where(column.id == plan_id)
                    .values(delete_time=deleted, purge_time=purged)
                )

    @rule()
    def purge(self) -> None:
        count = self._await(self._purge())
        over = {name for name, expected in self._expected.items() if expected.is_over}
        assert count == len(over)
        for name in over:
            del self._expected[name]

    async def _purge(self) -> int:
        jobs = ingest_jobs(SubjectDigests(bytes(32)), NOBODY)
        (job,) = (one for one in jobs if one.name == "purge-tracking-plans")
        async with self._database.begin() as transaction:
            now = await database_now(transaction)
            done = await job.run_batch(transaction, cursor="", now=now)
        assert done.done
        return done.row_count

    @rule(uid=uids)
    def look_at(self, uid: str) -> None:
        request = pb.GetTrackingPlanRequest(store_uid=STORE, plan_uid=uid)
        found = self._await(_is_done(self._ingest.GetTrackingPlan, request))
        assert found == (self._find(uid) is not None)

    @invariant()
    def all_are_listed(self) -> None:
        for show_deleted in (True, False):
            assert self._await(self._list(show_deleted=show_deleted)) == {
                expected.uid: expected.days_left is not None
                for expected in self._expected.values()
                if show_deleted or expected.days_left is None
            }

    async def _list(self, *, show_deleted: bool) -> dict[str, bool]:
        listed: dict[str, bool] = {}
        request = pb.ListTrackingPlansRequest(
            store_uid=STORE, show_deleted=show_deleted, page_size=1
        )
        while True:
            page = await self._ingest.ListTrackingPlans(request, timeout=5, metadata=ALL)
            listed |= {plan.uid: plan.HasField("delete_time") for plan in page.plans}
            if not page.next_page_token:
                return listed
            request.page_token = page.next_page_token


async def test_plans_are_what_was_done_to_them_after_any_sequence(
    ingest: Stub, database: Database
) -> None:
    loop = asyncio.get_running_loop()
    profile = settings(
        max_examples=20 if database.is_sqlite else 5,
        stateful_step_count=20,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )

    def machine() -> PlansLife:
        return PlansLife(ingest, database, loop)

    # Hypothesis is not asynchronous: it calls from a thread what serves in this one.
    await asyncio.to_thread(
        run_state_machine_as_test,
        machine,  # type: ignore[arg-type]  # Any factory will do, though a class is asked for.
        settings=profile,
    )


async def _is_done(method: Callable[..., Awaitable[object]], request: Message) -> bool:
    """Whether the call succeeds; if not, what it was about must not exist."""
    try:
        await method(request, timeout=5, metadata=ALL)
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.NOT_FOUND
        return False
    return True
