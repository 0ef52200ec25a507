"""Keys as production serves it, on each database, with a clock that tests set."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from common.cron import servicer as cron
from common.db import Database, open_database
from common.mutex import open_redis
from common.page_token import PageTokens
from deploy.local.mariadb import MariadbServer
from services.keys import servicer as keys
from services.keys.jobs import all_jobs
from services.keys.peppers import Pepper
from shoptrail.keys.v1 import api_key_pb2, keys_pb2, keys_pb2_grpc, store_pb2
from shoptrail.maintenance.v1 import maintenance_pb2_grpc
from tests.conftest import Databases, Serving


@dataclass(slots=True)
class Clock:
    """What Keys takes for the time. Jobs go by the database's."""

    time: datetime = field(default_factory=lambda: datetime.now(UTC))

    def now(self) -> datetime:
        return self.time


@dataclass(frozen=True, slots=True)
class Scene:
    """A running Keys, as its callers see it, and what is behind it."""

    operator: keys_pb2_grpc.KeysAsyncStub
    gateway: keys_pb2_grpc.KeysAsyncStub
    ingest: keys_pb2_grpc.KeysAsyncStub
    cron: maintenance_pb2_grpc.MaintenanceAsyncStub
    clock: Clock
    database: Database
    peppers: list[Pepper]


@pytest.fixture
async def scene(
    databases: Databases, serving: Serving, redis_urls: Mapping[str, str]
) -> AsyncIterator[Scene]:
    clock = Clock()
    peppers = [Pepper(version=1, secret=bytes(32))]
    page_tokens = PageTokens(bytes(32))
    redis = open_redis(redis_urls["keys"])

    async with databases("keys") as database, aclosing(redis):

        def register(server: grpc.aio.Server) -> None:
            keys_pb2_grpc.add_KeysServicer_to_server(
                keys.KeysServicer(
                    database, peppers=peppers, page_tokens=page_tokens, now=clock.now
                ),
                server,
            )
            maintenance_pb2_grpc.add_MaintenanceServicer_to_server(
                cron.CronServicer(
                    "keys",
                    database=database,
                    redis=redis,
                    jobs=all_jobs(peppers),
                    page_tokens=page_tokens,
                ),
                server,
            )

        async with serving([keys.SERVICE, cron.SERVICE], register) as connect:
            yield Scene(
                operator=keys_pb2_grpc.KeysStub(connect("operator")),
                gateway=keys_pb2_grpc.KeysStub(connect("gateway")),
                ingest=keys_pb2_grpc.KeysStub(connect("ingest")),
                cron=maintenance_pb2_grpc.MaintenanceStub(connect("cron")),
                clock=clock,
                database=database,
                peppers=peppers,
            )


@pytest.fixture
async def intruder(scene: Scene, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """Keys' database for someone who has got hold of all rights to its rows."""
    if scene.database.is_sqlite:
        yield scene.database
        return
    server: MariadbServer = request.getfixturevalue("mariadb_server")
    database = open_database(server.migration_url("keys"))
    yield database
    await database.dispose()


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a caller is told when a call fails."""

    code: grpc.StatusCode
    reason: str
    metadata: Mapping[str, str]
    fields: frozenset[str]


async def refusal_of(call: Awaitable[object]) -> Refusal:
    """How the call fails; it must."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = status_pb2.Status()
    status.ParseFromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info) or detail.Unpack(bad_request)
    return Refusal(
        code=caught.value.code(),
        reason=info.reason,
        metadata=dict(info.metadata),
        fields=frozenset(violation.field for violation in bad_request.field_violations),
    )


NOBODY = "00000000000000000000000000"
"""The part after the prefix of a uid that nothing has."""


async def new_store(scene: Scene, display_name: str = "Tea and cups") -> store_pb2.Store:
    """A store that the operator made."""
    request = keys_pb2.CreateStoreRequest(display_name=display_name)
    return (await scene.operator.CreateStore(request, timeout=5)).store


async def new_key(
    scene: Scene,
    store: store_pb2.Store | None,
    kind: api_key_pb2.KeyKind.ValueType = api_key_pb2.KEY_KIND_SECRET,
    *,
    expire_time: datetime | None = None,
    test: bool = False,
) -> keys_pb2.CreateKeyResponse:
    """A key that the operator made."""
    request = keys_pb2.CreateKeyRequest(
        store_uid=store.uid if store else "", kind=kind, display_name="Laptop", test=test
    )
    if expire_time is not None:
        request.expire_time.FromDatetime(expire_time)
    return await scene.operator.CreateKey(request, timeout=5)


async def works(scene: Scene, text: str) -> bool:
    """Whether the gateway would let the key pass."""
    verdict = await scene.gateway.VerifyKey(keys_pb2.VerifyKeyRequest(text=text), timeout=5)
    return verdict.HasField("key")
