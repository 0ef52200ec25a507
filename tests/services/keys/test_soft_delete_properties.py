"""Stores and keys through any sequence of create, delete, undelete, purge and list, by a model."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from common.cron.tables import cron_runs
from services.keys.tables import api_keys, key_uses, stores
from shoptrail.keys.v1 import api_key_pb2, store_pb2
from shoptrail.keys.v1 import keys_pb2 as pb
from shoptrail.maintenance.v1 import maintenance_pb2
from tests.services.keys.conftest import Scene, new_key, new_store, works

_Result = TypeVar("_Result")

RESTORABLE = timedelta(days=30)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
# Keys' clock starts there and never reaches now, by which the database's goes. The hours keep
# purge times away from now: they are decided by days.
START = timedelta(days=90, hours=12)


@dataclass(frozen=True, slots=True)
class Made:
    """What was made, and a key that works while it is not deleted."""

    uid: str
    key_text: str


@dataclass(slots=True)
class Expected:
    """What was made, as it should be. What is purged isn't kept."""

    key_text: str
    delete_time: datetime | None = None

    @property
    def purge_time(self) -> datetime | None:
        return self.delete_time + RESTORABLE if self.delete_time else None


class Kind(ABC):
    """Something that can be deleted, and what Keys is asked about it."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    async def prepare(self) -> None:
        """Make what the things need."""
        return

    @abstractmethod
    async def create(self) -> Made:
        """Make one."""

    @abstractmethod
    async def get(self, uid: str) -> object:
        """Look at one."""

    @abstractmethod
    async def delete(self, uid: str) -> object:
        """Delete one."""

    @abstractmethod
    async def undelete(self, uid: str) -> object:
        """Restore one."""

    @abstractmethod
    async def list_page(
        self, *, show_deleted: bool, page_token: str
    ) -> tuple[Sequence[store_pb2.Store | api_key_pb2.ApiKey], str]:
        """The latest, three at a time, and the next page's token."""


class Stores(Kind):
    """Stores, each with a key."""

    async def create(self) -> Made:
        store = await new_store(self.scene)
        return Made(store.uid, (await new_key(self.scene, store)).text)

    async def get(self, uid: str) -> object:
        return await self.scene.operator.GetStore(pb.GetStoreRequest(store_uid=uid), timeout=5)

    async def delete(self, uid: str) -> object:
        request = pb.DeleteStoreRequest(store_uid=uid)
        return await self.scene.operator.DeleteStore(request, timeout=5)

    async def undelete(self, uid: str) -> object:
        request = pb.UndeleteStoreRequest(store_uid=uid)
        return await self.scene.operator.UndeleteStore(request, timeout=5)

    async def list_page(
        self, *, show_deleted: bool, page_token: str
    ) -> tuple[Sequence[store_pb2.Store], str]:
        request = pb.ListStoresRequest(
            show_deleted=show_deleted, page_size=3, page_token=page_token
        )
        page = await self.scene.operator.ListStores(request, timeout=5)
        return page.stores, page.next_page_token


class ApiKeys(Kind):
    """Keys of a store that stays."""

    async def prepare(self) -> None:
        self._store = await new_store(self.scene)

    async def create(self) -> Made:
        created = await new_key(self.scene, self._store)
        return Made(created.key.uid, created.text)

    async def get(self, uid: str) -> object:
        request = pb.GetKeyRequest(store_uid=self._store.uid, key_uid=uid)
        return await self.scene.operator.GetKey(request, timeout=5)

    async def delete(self, uid: str) -> object:
        request = pb.DeleteKeyRequest(store_uid=self._store.uid, key_uid=uid)
        return await self.scene.operator.DeleteKey(request, timeout=5)

    async def undelete(self, uid: str) -> object:
        request = pb.UndeleteKeyRequest(store_uid=self._store.uid, key_uid=uid)
        return await self.scene.operator.UndeleteKey(request, timeout=5)

    async def list_page(
        self, *, show_deleted: bool, page_token: str
    ) -> tuple[Sequence[api_key_pb2.ApiKey], str]:
        request = pb.ListKeysRequest(
            store_uid=self._store.uid,
            show_deleted=show_deleted,
            page_size=3,
            page_token=page_token,
        )
        page = await self.scene.operator.ListKeys(request, timeout=5)
        return page.keys, page.next_page_token


class Life(RuleBasedStateMachine):
    """Does to Keys, over gRPC, what it does to the model, and compares."""

    uids: Bundle[str] = Bundle("uids")

    def __init__(self, kind: Kind, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._kind = kind
        self._scene = kind.scene
        self._loop = loop
        self._expected: dict[str, Expected] = {}  # the oldest first
        self._now = datetime.now(UTC)
        self._scene.clock.time = self._now - START
        self._purge_count = 0
        self._await(self._clear())
        self._await(self._kind.prepare())

    def _await(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _clear(self) -> None:
        async with self._scene.database.begin() as transaction:
            for table in (key_uses, api_keys, stores, cron_runs):
                await transaction.execute(table.delete())

    # Few, so that much happens to each.
    @precondition(lambda self: len(self._expected) < 2)
    @rule(target=uids)
    def create(self) -> str:
        made = self._await(self._kind.create())
        self._expected[made.uid] = Expected(made.key_text)
        return made.uid

    @rule(uid=uids)
    def delete(self, uid: str) -> None:
        expected = self._expected.get(uid)
        if expected and expected.delete_time is None:
            expected.delete_time = self._scene.clock.time
        deleted = self._await(_is_done(self._kind.delete(uid)))
        assert deleted == (expected is not None)

    @rule(uid=uids)
    def undelete(self, uid: str) -> None:
        expected = self._expected.get(uid)
        too_late = expected is None or (
            expected.purge_time is not None and expected.purge_time <= self._scene.clock.time
        )
        if expected and not too_late:
            expected.delete_time = None
        restored = self._await(_is_done(self._kind.undelete(uid)))
        assert restored == (not too_late)

    @rule(days=st.sampled_from([15, 30]))
    def let_time_pass(self, days: int) -> None:
        self._scene.clock.time = min(
            self._scene.clock.time + days * DAY, self._now - timedelta(hours=12)
        )

    @rule()
    def purge(self) -> None:
        # A scheduled time runs once, so each purge has one of its own.
        self._purge_count += 1
        request = maintenance_pb2.RunCronRequest(job="purge-deleted")
        latest = self._now.replace(minute=0, second=0, microsecond=0)
        request.scheduled_time.FromDatetime(latest - self._purge_count * HOUR)

        answer = self._await(self._run(request))

        assert answer.outcome == maintenance_pb2.RUN_CRON_OUTCOME_RAN
        self._expected = {
            uid: expected
            for uid, expected in self._expected.items()
            if expected.purge_time is None or expected.purge_time > self._now
        }

    async def _run(
        self, request: maintenance_pb2.RunCronRequest
    ) -> maintenance_pb2.RunCronResponse:
        return await self._scene.cron.RunCron(request, timeout=30)

    @rule(uid=uids)
    def look_at(self, uid: str) -> None:
        expected = self._expected.get(uid)
        found = self._await(_is_done(self._kind.get(uid)))
        assert found == (expected is not None)
        if expected:
            assert self._await(works(self._scene, expected.key_text)) == (
                expected.delete_time is None
            )
        self._compare_list(show_deleted=False)

    @invariant()
    def all_are_listed(self) -> None:
        self._compare_list(show_deleted=True)

    def _compare_list(self, *, show_deleted: bool) -> None:
        assert self._await(self._list(show_deleted=show_deleted)) == [
            (uid, expected.delete_time, expected.purge_time)
            for uid, expected in reversed(self._expected.items())
            if show_deleted or expected.delete_time is None
        ]

    async def _list(
        self, *, show_deleted: bool
    ) -> list[tuple[str, datetime | None, datetime | None]]:
        listed = []
        page_token = ""
        while True:
            some, page_token = await self._kind.list_page(
                show_deleted=show_deleted, page_token=page_token
            )
            listed += [
                (
                    each.uid,
                    _as_time(each.delete_time) if each.HasField("delete_time") else None,
                    _as_time(each.purge_time) if each.HasField("purge_time") else None,
                )
                for each in some
            ]
            if not page_token:
                return listed


@pytest.mark.parametrize("kind", [Stores, ApiKeys])
async def test_they_are_what_was_done_to_them_after_any_sequence(
    scene: Scene, kind: type[Kind]
) -> None:
    loop = asyncio.get_running_loop()
    on_sqlite = scene.database.is_sqlite
    profile = settings(
        max_examples=30 if on_sqlite else 5,
        stateful_step_count=20,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )

    def machine() -> Life:
        return Life(kind(scene), loop)

    # Hypothesis is not asynchronous: it calls from a thread what serves in this one.
    await asyncio.to_thread(
        run_state_machine_as_test,
        machine,  # type: ignore[arg-type]  # Any factory will do, though a class is asked for.
        settings=profile,
    )


async def _is_done(call: Awaitable[object]) -> bool:
    """Whether the call succeeds; if not, what it was about must not exist."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.NOT_FOUND
        return False
    return True


def _as_time(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)
