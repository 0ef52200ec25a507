"""What tests of Query share: the running service, and short ways to fill and to ask it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from common.db import Database
from common.uid import new_uid
from services.query import figures, repository
from services.query.columns import EventColumns
from services.query.freshness import Cursor, Sightings
from services.query.projection import fold
from shoptrail.ingest.v1 import ingest_pb2_grpc
from shoptrail.ingest.v1.event_pb2 import Event
from shoptrail.maintenance.v1 import maintenance_pb2_grpc
from shoptrail.query.v1 import query_pb2, query_pb2_grpc
from tests.conftest import key_metadata
from tests.services.query.fake_ingest import FakeIngest

# In quotes: only the stubs of types know the stub for asyncio.
ReadingFrom: TypeAlias = (
    "Callable[[FakeIngest], AbstractAsyncContextManager[ingest_pb2_grpc.IngestAsyncStub]]"
)


@dataclass(slots=True)
class Scene:
    """A running Query, as the gateway and cron see it, and what is behind it."""

    database: Database
    sightings: Sightings
    columns: EventColumns
    query: query_pb2_grpc.QueryAsyncStub
    operator: query_pb2_grpc.QueryAsyncStub
    cron: maintenance_pb2_grpc.MaintenanceAsyncStub
    store_uid: str = field(default_factory=lambda: new_uid("sto"))
    position: int = 0

    async def project(self, *events: Event, memory: figures.Memory | None = None) -> None:
        """Bring the read models up to date with events that follow those before."""
        for offset, event in enumerate(events, start=1):
            event.position = self.position + offset
        projection = fold(events, shard=0, after_position=self.position)
        async with self.database.begin() as transaction:
            await repository.add_first_generation(transaction)
            live = await repository.find_live_generation(transaction)
            await repository.add_cursors(transaction, live, shard_count=1)
            known = (await repository.list_cursors(transaction, live))[0]
            as_of_time = projection.events[-1].receive_time
            moved = Cursor(0, projection.position, as_of_time)
            assert await repository.move_cursor(transaction, live, known, moved)
            await figures.add_facts(transaction, live, projection.facts, memory)
            await repository.add_events(transaction, projection.events)
        self.position = projection.position

    async def count(self, request: query_pb2.CountEventsRequest) -> query_pb2.CountEventsResponse:
        request.store_uid = request.store_uid or self.store_uid
        return await self.query.CountEvents(
            request,
            timeout=10,
            metadata=key_metadata("reports:read", store_uid=request.store_uid),
        )

    async def list(self, request: query_pb2.ListEventsRequest) -> query_pb2.ListEventsResponse:
        request.store_uid = request.store_uid or self.store_uid
        return await self.query.ListEvents(
            request,
            timeout=10,
            metadata=key_metadata("events:read", store_uid=request.store_uid),
        )


def violations_of(failure: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> dict[str, str]:
    """The field violations that a call failed with."""
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(failure.value)  # type: ignore[arg-type]  # aio errors have all it reads
    assert status is not None
    bad_request = error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(bad_request)
    return {fault.field: fault.description for fault in bad_request.field_violations}
