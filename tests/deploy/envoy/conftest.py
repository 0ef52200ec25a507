"""An edge, a gateway and fake services, each behind a real Envoy as production has it."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from common.client import open_channel
from common.server import build_server, listen
from deploy.calls import EDGE, GATEWAY, SERVICES
from deploy.envoy.settings import EGRESS_PORTS, MESH_PORT, Environment
from deploy.local.certificates import CertificateFiles, issue_certificates
from gateway.app import build_gateway
from gateway.config import Settings
from gateway.http_server import serve_http
from gateway.readiness import Readiness
from shoptrail.keys.v1 import api_key_pb2
from tests.conftest import IDENTITIES
from tests.deploy.envoy.pods import Pod, Pods, eventually
from tests.gateway.conftest import (
    ALL_SCOPES,
    MAINTENANCE,
    PRIVACY,
    SECRET_KEY,
    STORE,
    WRITE_KEY,
    FakeService,
    Mesh,
    publishable_key,
)

RATE_PER_SECOND = 200
ENVIRONMENT = Environment(
    "test",
    requests_per_second=2_000,
    requests_per_second_of_address=RATE_PER_SECOND,
    check_seconds=0.2,
)


@pytest.fixture(scope="session")
def issued(scratch: Path) -> Mapping[str, CertificateFiles]:
    """A certificate for each identity, the edge's too."""
    return issue_certificates(scratch / "pods-tls", (*IDENTITIES, EDGE), now=datetime.now(UTC))


@dataclass
class Street:
    """Edge, gateway, Ingest and Keys, each in a pod with its Envoy; and whom they can ask."""

    pods: Pods
    edge: Pod
    gateway: Pod
    services: Mapping[str, Pod]
    mesh: Mesh
    http: httpx.AsyncClient
    """Speaks to the edge, as anyone does."""

    def client(self, **options: Any) -> httpx.AsyncClient:
        """Another client of the edge."""
        return edge_client(self.edge, **options)

    def connect(self, identity: Pod, service: str) -> grpc.aio.Channel:
        """A channel from a pod without a proxy to a service's proxy."""
        return open_channel(
            f"{self.services[service].address}:{MESH_PORT}",
            f"shoptrail.{service}.v1.{service.capitalize()}",
            service,
            identity.certificates(),
        )


def edge_client(edge: Pod, **options: Any) -> httpx.AsyncClient:
    """An HTTP client that trusts the edge's certificate."""
    context = ssl.create_default_context(cafile=str(edge.tls / "ca.crt"))
    context.check_hostname = False  # The certificate is of `edge`, and its address is one of many.
    return httpx.AsyncClient(base_url=edge.url, verify=context, timeout=20.0, **options)


@pytest.fixture(scope="module")
async def standing_street(
    tmp_path_factory: pytest.TempPathFactory, issued: Mapping[str, CertificateFiles]
) -> AsyncIterator[Street]:
    """One for a module's tests: Envoys take a while to start.

    Not for all: each watches files by means of which a user has 128 on many systems.
    """
    pods = Pods(tmp_path_factory.mktemp("pods"), issued, ENVIRONMENT)
    names = (EDGE, GATEWAY, *SERVICES)
    by_name = {name: pods.new(name) for name in names}
    hosts = {name: (pod.address,) for name, pod in by_name.items()}
    services = {name: by_name[name] for name in SERVICES}
    mesh = Mesh(
        {},
        services={
            name: FakeService(f"shoptrail.{name}.v1.{name.capitalize()}") for name in SERVICES
        },
        jobs={name: FakeService(MAINTENANCE) for name in SERVICES},
        privacy=FakeService(PRIVACY),
        keys_by_text={},
    )
    mesh.services["maintenance"] = mesh.jobs["maintenance"]
    async with AsyncExitStack() as stack:
        for name, pod in services.items():
            await stack.enter_async_context(pods.proxied(pod, hosts))
            server = build_server(
                list(dict.fromkeys([mesh.services[name].name, MAINTENANCE])), proxy=name
            )
            for fake in {id(f): f for f in (mesh.services[name], mesh.jobs[name])}.values():
                fake.add_to(server)
            status = health.aio.HealthServicer()
            health_pb2_grpc.add_HealthServicer_to_server(status, server)
            listen(server, pod.application, pod.certificates())
            await server.start()
            await status.set("", health_pb2.HealthCheckResponse.SERVING)
            stack.push_async_callback(server.stop, None)
        gateway = by_name[GATEWAY]
        await stack.enter_async_context(pods.proxied(gateway, hosts))
        channels = {}
        for name in SERVICES:
            channels[name] = open_channel(
                f"{gateway.address}:{EGRESS_PORTS[name]}",
                mesh.services[name].name,
                name,
                gateway.certificates(),
                proxy=GATEWAY,
            )
            stack.push_async_callback(channels[name].close)
        readiness = Readiness(channels)
        application = build_gateway(
            channels,
            settings=Settings(trusted_proxies=(ip_network(gateway.address),)),
            readiness=readiness,
            registry=CollectorRegistry(),
            now=lambda: datetime.now(UTC),
            monotonic=time.monotonic,
        )
        await stack.enter_async_context(
            serve_http(application, gateway.application, grace_seconds=1.0)
        )
        await readiness.see_services()
        await stack.enter_async_context(pods.proxied(by_name[EDGE], hosts))
        http = await stack.enter_async_context(edge_client(by_name[EDGE]))

        know_keys(mesh)

        async def serves() -> bool:
            event = {"event": "Viewed", "anonymousId": "a", "messageId": "first"}
            headers = {"Authorization": f"Bearer {WRITE_KEY}"}
            return (await http.post("/v1/track", json=event, headers=headers)).status_code == 200

        await eventually(serves, seconds=30)
        yield Street(pods, by_name[EDGE], gateway, services, mesh, http)


@pytest.fixture
def street(standing_street: Street) -> Street:
    """Keys knows a publishable key of a store, and a secret one with all scopes."""
    standing_street.mesh.forget()
    know_keys(standing_street.mesh)
    return standing_street


def know_keys(mesh: Mesh) -> None:
    """Have Keys and Ingest answer as they do for a store with two keys."""
    mesh.keys_by_text[WRITE_KEY] = publishable_key("key_1", STORE)
    mesh.keys_by_text[SECRET_KEY] = api_key_pb2.ApiKey(
        uid="key_2", store_uid=STORE, scopes=ALL_SCOPES
    )
    mesh.keys.answers["VerifyKey"] = mesh.verify_key
    mesh.ingest.answers["Append"] = mesh.append
