"""Two gateways in front of the real Keys; what they hand on ends in fakes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import httpx
import pytest
from prometheus_client import CollectorRegistry

from common.client import open_channel
from common.db import Database
from common.page_token import PageTokens
from common.server import build_server, listen
from common.tls import Certificates
from deploy.local.ports import reserved
from gateway.app import build_gateway
from gateway.config import Settings
from gateway.http_server import serve_http
from gateway.readiness import Readiness
from services.keys import servicer as keys
from services.keys.peppers import Pepper
from shoptrail.keys.v1 import api_key_pb2, keys_pb2, keys_pb2_grpc
from tests.conftest import Databases
from tests.gateway.conftest import MAINTENANCE, PRIVACY, FakeService, Mesh

NAMES = ("ingest", "query", "keys", "maintenance")


@dataclass(slots=True)
class WallClock:
    """What Keys and the gateways take for the time of day; how long things take is real."""

    ahead: timedelta = field(default_factory=timedelta)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class RealKeys(FakeService):
    """Serves Keys as production does, over a database."""

    def __init__(self, database: Database, clock: WallClock) -> None:
        super().__init__(keys.SERVICE)
        self._servicer = keys.KeysServicer(
            database,
            peppers=[Pepper(version=1, secret=bytes(32))],
            page_tokens=PageTokens(bytes(32)),
            now=clock.now,
        )

    def add_to(self, server: grpc.aio.Server) -> None:
        keys_pb2_grpc.add_KeysServicer_to_server(self._servicer, server)


@dataclass(frozen=True, slots=True)
class Town:
    """Two gateways, and Keys, which both ask."""

    mesh: Mesh
    operator: keys_pb2_grpc.KeysAsyncStub
    gateways: tuple[httpx.AsyncClient, httpx.AsyncClient]
    clock: WallClock

    async def new_store(self) -> str:
        """The uid of a new store."""
        request = keys_pb2.CreateStoreRequest(display_name="Tea and cups")
        return (await self.operator.CreateStore(request, timeout=5)).store.uid

    async def new_key(
        self,
        store_uid: str,
        kind: api_key_pb2.KeyKind.ValueType = api_key_pb2.KEY_KIND_PUBLISHABLE,
        **fields: Any,
    ) -> keys_pb2.CreateKeyResponse:
        """A key that the operator made."""
        request = keys_pb2.CreateKeyRequest(store_uid=store_uid, kind=kind, **fields)
        return await self.operator.CreateKey(request, timeout=5)

    async def send(self, gateway: int, key: str, **headers: str) -> httpx.Response:
        """What a gateway answers to an event that is sent with the key."""
        return await self.gateways[gateway].post(
            "/v1/track",
            json={"event": "Product Viewed", "anonymousId": "a"},
            headers={"Authorization": f"Bearer {key}", **headers},
        )

    async def statuses(self, key: str) -> list[int]:
        """What both gateways answer to an event that is sent with the key."""
        return [(await self.send(gateway, key)).status_code for gateway in (0, 1)]

    async def seconds_until(self, expected: int, key: str) -> float:
        """How long it takes until both gateways answer so; at most 5 s."""
        began = time.monotonic()
        async with asyncio.timeout(5):
            while await self.statuses(key) != [expected, expected]:
                pass
        return time.monotonic() - began


@pytest.fixture
async def town(
    databases: Databases, certificates: Mapping[str, Certificates]
) -> AsyncIterator[Town]:
    clock = WallClock()
    async with databases("keys") as database, AsyncExitStack() as stack:
        mesh = Mesh(
            certificates,
            services={
                name: FakeService(f"shoptrail.{name}.v1.{name.capitalize()}") for name in NAMES
            },
            jobs={name: FakeService(MAINTENANCE) for name in NAMES},
            privacy=FakeService(PRIVACY),
            keys_by_text={},
        )
        mesh.services["keys"] = RealKeys(database, clock)
        mesh.services["maintenance"] = mesh.jobs["maintenance"]
        mesh.ingest.answers["Append"] = mesh.append
        mesh.ports.update(zip(NAMES, stack.enter_context(reserved(len(NAMES))), strict=True))
        for name in NAMES:
            await mesh.start(name)
            stack.push_async_callback(mesh.stop, name)

        # A replica of its own for the operator, whom gateways that lose theirs don't concern.
        replica = build_server([keys.SERVICE])
        mesh.services["keys"].add_to(replica)
        replica_port = listen(replica, "127.0.0.1:0", certificates["keys"])
        await replica.start()
        stack.push_async_callback(replica.stop, None)
        operator = open_channel(
            f"127.0.0.1:{replica_port}", keys.SERVICE, "keys", certificates["operator"]
        )
        stack.push_async_callback(operator.close)

        clients = []
        for _ in range(2):
            channels = {
                name: open_channel(
                    f"127.0.0.1:{port}", mesh.services[name].name, name, certificates["gateway"]
                )
                for name, port in mesh.ports.items()
            }
            for channel in channels.values():
                stack.push_async_callback(channel.close)
                await channel.channel_ready()
            gateway = build_gateway(
                channels,
                settings=Settings.model_validate({"session_key": "ab" * 32}),
                readiness=Readiness(channels),
                registry=CollectorRegistry(),
                now=clock.now,
                monotonic=time.monotonic,
            )
            staying_current = asyncio.create_task(gateway.stay_current(report_seconds=0.3))
            stack.callback(staying_current.cancel)
            port = await stack.enter_async_context(
                serve_http(gateway, "127.0.0.1:0", grace_seconds=1.0)
            )
            client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10)
            clients.append(await stack.enter_async_context(client))
        yield Town(
            mesh=mesh,
            operator=keys_pb2_grpc.KeysStub(operator),
            gateways=(clients[0], clients[1]),
            clock=clock,
        )
