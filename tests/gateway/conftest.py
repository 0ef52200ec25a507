"""The gateway as it runs in production, over services that are fakes on real servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import httpx
import msgspec
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from common.access import methods_of, rule_of
from common.client import open_channel
from common.context import Call, get_call
from common.errors import NotFound
from common.server import build_server, listen
from common.tls import Certificates
from deploy.local.ports import reserved
from gateway.app import build_gateway
from gateway.config import Settings
from gateway.exchange import Request, Response
from gateway.http_server import serve_http
from gateway.readiness import Readiness
from gateway.transcoding import http_methods
from shoptrail.ingest.v1 import event_pb2, ingest_pb2
from shoptrail.keys.v1 import api_key_pb2, keys_pb2

MAINTENANCE = "shoptrail.maintenance.v1.Maintenance"
PRIVACY = "shoptrail.maintenance.v1.Privacy"
STORE = "sto_01h455vb4pex5vsknk084sn02q"
OTHER_STORE = "sto_01h455vb4pex5vsknk084sn02r"
WRITE_KEY = "pk_test_write"
SECRET_KEY = "sk_test_secret"
ALL_SCOPES = tuple(
    sorted({"events:write"}.union(*(rule_of(method.rpc).scopes for method in http_methods())))
)


def publishable_key(uid: str, store_uid: str) -> api_key_pb2.ApiKey:
    """A key that writes the events of a store."""
    return api_key_pb2.ApiKey(
        uid=uid,
        store_uid=store_uid,
        kind=api_key_pb2.KEY_KIND_PUBLISHABLE,
        scopes=["events:write"],
    )


class FakeService:
    """Serves every RPC of a service; notes each call, and answers what it is told to."""

    def __init__(self, name: str) -> None:
        """`name` is the full name of the service."""
        self.name = name
        self.calls: list[tuple[str, Any, Call]] = []
        self.answers: dict[str, Callable[[Any], Awaitable[Message]]] = {}

    def add_to(self, server: grpc.aio.Server) -> None:
        handlers = {
            method.name: grpc.unary_unary_rpc_method_handler(
                self._handler(method.name, GetMessageClass(method.output_type)),
                request_deserializer=GetMessageClass(method.input_type).FromString,
                response_serializer=GetMessageClass(method.output_type).SerializeToString,
            )
            for method in methods_of(self.name)
        }
        handler = grpc.method_handlers_generic_handler(self.name, handlers)
        server.add_generic_rpc_handlers((handler,))

    def requests(self, method: str) -> list[Any]:
        """What the RPC was called with, in order."""
        return [request for name, request, _ in self.calls if name == method]

    def _handler(self, method: str, empty: type[Message]) -> Callable[..., Awaitable[Message]]:
        async def handle(request: Any, context: Any) -> Message:
            self.calls.append((method, request, get_call()))
            answer = self.answers.get(method)
            return await answer(request) if answer else empty()

        return handle


class Clock:
    """A clock that goes on by itself and can be moved on."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def move_on(self, seconds: float) -> None:
        self._ahead += seconds

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._ahead)

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead


@dataclass
class Mesh:
    """Four fake services on servers of their own, each with its certificate."""

    certificates: Mapping[str, Certificates]
    services: dict[str, FakeService]
    jobs: dict[str, FakeService]
    """What each of them serves of Maintenance."""
    privacy: FakeService
    """What Maintenance serves beside it."""
    keys_by_text: dict[str, api_key_pb2.ApiKey]
    stored: set[str] = field(default_factory=set)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever Ingest has looked at events."""
    ports: dict[str, int] = field(default_factory=dict)
    _servers: dict[str, grpc.aio.Server] = field(default_factory=dict)

    @property
    def ingest(self) -> FakeService:
        return self.services["ingest"]

    @property
    def keys(self) -> FakeService:
        return self.services["keys"]

    @property
    def appended(self) -> list[ingest_pb2.Submission]:
        """Every submission that reached Ingest, in order."""
        return [each for call in self.ingest.requests("Append") for each in call.submissions]

    async def start(self, name: str) -> None:
        served = {self.services[name].name: self.services[name], MAINTENANCE: self.jobs[name]}
        if name == "maintenance":
            served[PRIVACY] = self.privacy
        server = build_server(list(served))
        for service in served.values():
            service.add_to(server)
        status = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(status, server)
        listen(server, f"127.0.0.1:{self.ports[name]}", self.certificates[name])
        await server.start()
        await status.set("", health_pb2.HealthCheckResponse.SERVING)
        self._servers[name] = server

    async def stop(self, name: str) -> None:
        if name in self._servers:
            await self._servers.pop(name).stop(None)

    def is_running(self, name: str) -> bool:
        return name in self._servers

    def forget(self) -> None:
        """Be as at the start of a test."""
        for service in (*self.services.values(), *self.jobs.values(), self.privacy):
            service.calls.clear()
            service.answers.clear()
        self.keys_by_text.clear()
        self.stored.clear()

    async def verify_key(self, request: keys_pb2.VerifyKeyRequest) -> keys_pb2.VerifyKeyResponse:
        answer = keys_pb2.VerifyKeyResponse(key=self.keys_by_text.get(request.text))
        answer.remember.FromTimedelta(timedelta(seconds=10))
        return answer

    async def append(self, request: ingest_pb2.AppendRequest) -> ingest_pb2.AppendResponse:
        results = [self._result_of(submission) for submission in request.submissions]
        self.news.set()
        return ingest_pb2.AppendResponse(results=results)

    def _result_of(self, submission: ingest_pb2.Submission) -> ingest_pb2.SubmissionResult:
        result = ingest_pb2.SubmissionResult()
        for index, payload in enumerate(submission.payloads):
            try:
                event = msgspec.json.decode(payload)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                event = None
            if not isinstance(event, dict) or (
                not event.get("event") and event.get("type", "track") == "track"
            ):
                result.verdicts.append(event_pb2.VERDICT_REJECTED)
                result.faults.add(
                    index=index, code="name_missing", path="event", message="Name the event."
                )
            elif event.get("messageId") in self.stored:
                result.verdicts.append(event_pb2.VERDICT_DUPLICATE)
            else:
                result.verdicts.append(event_pb2.VERDICT_ACCEPTED)
                if "messageId" in event:
                    self.stored.add(event["messageId"])
        return result


@pytest.fixture(scope="session")
async def standing_mesh(certificates: Mapping[str, Certificates]) -> AsyncIterator[Mesh]:
    """The fake services, for all tests: starting them takes longer than most of those."""
    names = ("ingest", "query", "keys", "maintenance")
    mesh = Mesh(
        certificates,
        services={name: FakeService(f"shoptrail.{name}.v1.{name.capitalize()}") for name in names},
        jobs={name: FakeService(MAINTENANCE) for name in names},
        privacy=FakeService(PRIVACY),
        keys_by_text={},
    )
    mesh.services["maintenance"] = mesh.jobs["maintenance"]
    with reserved(len(names)) as ports:
        mesh.ports.update(zip(names, ports, strict=True))
        for name in names:
            await mesh.start(name)
        yield mesh
        for name in names:
            await mesh.stop(name)


@pytest.fixture
async def mesh(standing_mesh: Mesh) -> AsyncIterator[Mesh]:
    """Keys knows a publishable key of a store, and a secret one with all scopes."""
    mesh = standing_mesh
    mesh.forget()
    mesh.keys_by_text[WRITE_KEY] = publishable_key("key_1", STORE)
    mesh.keys_by_text[SECRET_KEY] = api_key_pb2.ApiKey(
        uid="key_2", store_uid=STORE, scopes=ALL_SCOPES
    )
    mesh.keys.answers["VerifyKey"] = mesh.verify_key
    mesh.ingest.answers["Append"] = mesh.append
    mesh.keys.answers["GetStore"] = _find_no_store
    yield mesh
    for name in mesh.ports:
        if not mesh.is_running(name):
            await mesh.start(name)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@dataclass(frozen=True, slots=True)
class Running:
    """The gateway at work, and what it was built from."""

    port: int
    http: httpx.AsyncClient
    readiness: Readiness


class Doorway:
    """An application that hands everything to the test's own."""

    def __init__(self) -> None:
        self.application: Any = None

    async def __call__(self, request: Request) -> Response:
        response: Response = await self.application(request)
        return response


@pytest.fixture(scope="session")
async def doorway() -> AsyncIterator[tuple[Doorway, int]]:
    """A web server for all tests, and its port."""
    doorway = Doorway()
    async with serve_http(doorway, "127.0.0.1:0", grace_seconds=1.0) as port:
        yield doorway, port


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> Settings:
    """How the gateway treats requests; a test may parametrize it."""
    return Settings(**getattr(request, "param", {}))


@pytest.fixture(scope="session")
async def channels(
    standing_mesh: Mesh, certificates: Mapping[str, Certificates]
) -> AsyncIterator[Mapping[str, grpc.aio.Channel]]:
    """The gateway's channels to the fake services."""
    mesh = standing_mesh
    async with AsyncExitStack() as stack:
        channels = {}
        for name, port in mesh.ports.items():
            channels[name] = open_channel(
                f"127.0.0.1:{port}", mesh.services[name].name, name, certificates["gateway"]
            )
            stack.push_async_callback(channels[name].close)
        yield channels


@pytest.fixture
async def gateway(
    mesh: Mesh,
    clock: Clock,
    channels: Mapping[str, grpc.aio.Channel],
    doorway: tuple[Doorway, int],
    settings: Settings,
) -> AsyncIterator[Running]:
    """The gateway over the fake services, on a free port."""
    for channel in channels.values():
        await channel.channel_ready()
    readiness = Readiness(channels)
    door, port = doorway
    door.application = build_gateway(
        channels,
        settings=settings,
        readiness=readiness,
        registry=CollectorRegistry(),
        now=clock.now,
        monotonic=clock.monotonic,
    )
    # Without a TLS context, which it has no use for: that is most of what it takes to make one.
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        timeout=20.0,
        verify=False,  # noqa: S501 - plain HTTP
    ) as http:
        yield Running(port, http, readiness)


async def _find_no_store(request: keys_pb2.GetStoreRequest) -> Message:
    raise NotFound("There is no such store.", {"uid": request.store_uid})
