"""Real processes, two of each that matters, come and go while shops send; nobody notices."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from common.client import open_channel
from common.db import open_database
from deploy.calls import EDGE, GATEWAY, SERVICES
from deploy.envoy.settings import EGRESS_PORTS, MESH_PORT, METRICS_PORT
from deploy.local.certificates import CertificateFiles
from deploy.local.mariadb import MariadbServer
from deploy.local.processes import Child, Program, kept_running
from shoptrail.keys.v1 import api_key_pb2, keys_pb2, keys_pb2_grpc
from tests.conftest import empty
from tests.deploy.envoy.conftest import ENVIRONMENT, edge_client
from tests.deploy.envoy.pods import Pod, Pods, eventually

REPLICAS = {GATEWAY: 2, "ingest": 2, "query": 1, "keys": 2, "maintenance": 1}
SENDERS = 4


@dataclass
class Town:
    """A whole mesh behind an edge, with what its processes are told."""

    edge: Pod
    children: Mapping[str, list[Child]]
    logs: Mapping[str, list[Path]]
    write_key: str
    secret_key: str
    store_uid: str


@pytest.fixture(scope="module")
async def town(
    scratch: Path,
    issued: Mapping[str, CertificateFiles],
    mariadb_server: MariadbServer,
    redis_urls: Mapping[str, str],
) -> AsyncIterator[Town]:
    pods = Pods(scratch / "town", issued, ENVIRONMENT)
    by_process = {
        process: [pods.new(process) for _ in range(count)] for process, count in REPLICAS.items()
    }
    edge = pods.new(EDGE)
    hosts = {
        process: tuple(pod.address for pod in replicas) for process, replicas in by_process.items()
    }
    page_token_keys = {service: secrets.token_hex(32) for service in SERVICES}
    peppers = f"1:{secrets.token_hex(32)}"

    def environment_of(pod: Pod) -> dict[str, str]:
        variables = {
            "LISTEN_ADDRESS": pod.application,
            "TLS_CERTIFICATE": str(pod.tls / "tls.crt"),
            "TLS_KEY": str(pod.tls / "tls.key"),
            "TLS_AUTHORITY": str(pod.tls / "ca.crt"),
            "BEHIND_PROXY": "true",
            "DRAIN_SECONDS": "1",
            "GRACE_SECONDS": "3",
        }
        if pod.identity == GATEWAY:
            variables |= {
                f"{service.upper()}_ADDRESS": f"{pod.address}:{EGRESS_PORTS[service]}"
                for service in SERVICES
            }
        else:
            variables |= {
                "METRICS_ADDRESS": f"{pod.address}:{METRICS_PORT}",
                "DATABASE_URL": mariadb_server.url(pod.identity),
                "REDIS_URL": redis_urls[pod.identity],
                "PAGE_TOKEN_KEY": page_token_keys[pod.identity],
            }
        if pod.identity == "keys":
            variables["PEPPERS"] = peppers
        if pod.identity in ("ingest", "query"):
            variables["KEYS_ADDRESS"] = f"{pod.address}:{EGRESS_PORTS['keys']}"
        if pod.identity == "query":
            variables["INGEST_ADDRESS"] = f"{pod.address}:{EGRESS_PORTS['ingest']}"
        return {f"{pod.identity.upper()}_{name}": value for name, value in variables.items()}

    children = {
        process: [
            Child(
                Program(
                    name=pod.directory.name,
                    arguments=(
                        sys.executable,
                        "-m",
                        process if process == GATEWAY else f"services.{process}",
                    ),
                    log=pod.directory / "process.log",
                    environment=environment_of(pod),
                )
            )
            for pod in replicas
        ]
        for process, replicas in by_process.items()
    }
    async with AsyncExitStack() as stack:
        for pod in [*itertools.chain.from_iterable(by_process.values()), edge]:
            await stack.enter_async_context(pods.proxied(pod, hosts))
        everyone = itertools.chain.from_iterable(children.values())
        await stack.enter_async_context(kept_running(*everyone, patience_seconds=8))
        operator = pods.new("operator")
        channel = open_channel(
            f"{by_process['keys'][0].address}:{MESH_PORT}",
            "shoptrail.keys.v1.Keys",
            "keys",
            operator.certificates(),
        )
        stack.push_async_callback(channel.close)
        http = await stack.enter_async_context(edge_client(edge))

        async def serves() -> bool:
            return (await http.get("/openapi.json")).status_code == 200

        await eventually(serves, seconds=60)
        keys = keys_pb2_grpc.KeysStub(channel)
        store = await keys.CreateStore(
            keys_pb2.CreateStoreRequest(display_name="Tea and cups"),
            timeout=20,
            wait_for_ready=True,
        )
        texts = [
            (
                await keys.CreateKey(
                    keys_pb2.CreateKeyRequest(store_uid=store.store.uid, kind=kind), timeout=5
                )
            ).text
            for kind in (api_key_pb2.KEY_KIND_PUBLISHABLE, api_key_pb2.KEY_KIND_SECRET)
        ]
        logs = {
            process: [pod.directory / "process.log" for pod in replicas]
            for process, replicas in by_process.items()
        }
        yield Town(edge, children, logs, texts[0], texts[1], store.store.uid)
    for service in SERVICES:
        database = open_database(mariadb_server.url(service))
        await empty(database, service)
        await database.dispose()


@dataclass
class Shop:
    """Sends events without a pause, each once, and never tries again."""

    town: Town
    outcomes: Counter[tuple[int, str]] = field(default_factory=Counter)
    sent: int = 0
    more: asyncio.Condition = field(default_factory=asyncio.Condition)

    def message_id(self, number: int) -> str:
        return f"{id(self)}-{number}"

    async def send_on(self) -> None:
        async with edge_client(self.town.edge) as client:
            client.headers["Authorization"] = f"Bearer {self.town.write_key}"
            while True:
                self.sent += 1
                event = {
                    "event": "Viewed",
                    "anonymousId": "a",
                    "messageId": self.message_id(self.sent),
                }
                try:
                    answer = await client.post("/v1/track", json=event)
                    stored = answer.status_code == 200 and (
                        answer.json()["accepted"] + answer.json()["duplicates"] == 1
                    )
                    outcome = (answer.status_code, "" if stored else answer.text)
                except httpx.TransportError as error:
                    outcome = (0, repr(error))
                async with self.more:
                    self.outcomes[outcome] += 1
                    self.more.notify_all()

    async def hear(self, count: int) -> None:
        """Wait for so many more answers."""
        goal = self.outcomes.total() + count
        async with self.more, asyncio.timeout(30):
            await self.more.wait_for(lambda: self.outcomes.total() >= goal)


@pytest.fixture
async def shops(town: Town) -> AsyncIterator[list[Shop]]:
    shops = [Shop(town) for _ in range(SENDERS)]
    sending = [asyncio.create_task(shop.send_on()) for shop in shops]
    for shop in shops:
        await shop.hear(3)
    yield shops
    for task in sending:
        task.cancel()
    await asyncio.wait(sending)


def count_starts(log: Path) -> int:
    """How often the process whose log this is has begun to serve."""
    return log.read_text().count('"serving"') if log.exists() else 0


async def restart(child: Child) -> None:
    """As a rolling update does: told to end, and then another comes."""
    await child.stop(patience_seconds=10)
    await child.start()


async def crash(child: Child) -> None:
    """As a lost machine does it; the launcher starts it again."""
    assert child.pid is not None
    former = child.pid
    os.kill(former, signal.SIGKILL)

    async def another() -> bool:
        return child.pid != former

    await eventually(another)


@pytest.mark.parametrize(
    ("how", "processes"), [(restart, ("ingest", GATEWAY, "keys")), (crash, ("ingest", GATEWAY))]
)
async def test_processes_come_and_go_and_no_request_fails(
    town: Town,
    shops: list[Shop],
    how: Callable[[Child], Awaitable[None]],
    processes: tuple[str, ...],
) -> None:
    for process in processes:
        for number, child in enumerate(town.children[process]):
            log = town.logs[process][number]
            # A child that is stopped and started begins a new log; one that crashed goes on.
            before = count_starts(log) if how is crash else 0
            await how(child)

            async def serves_again(log: Path = log, before: int = before) -> bool:
                return count_starts(log) > before

            await eventually(serves_again, seconds=60)
            for shop in shops:
                await shop.hear(3)

    outcomes = sum((shop.outcomes for shop in shops), Counter[tuple[int, str]]())
    assert set(outcomes) == {(200, "")}, outcomes
    await each_is_stored_once(town, shops)


async def each_is_stored_once(town: Town, shops: list[Shop]) -> None:
    """Ask the log which of the events that were answered it has."""
    async with edge_client(town.edge) as client:
        client.headers["Authorization"] = f"Bearer {town.secret_key}"
        for shop in shops:
            ids = [shop.message_id(number) for number in range(1, shop.sent)]
            for first in range(0, len(ids), 100):
                asked = ids[first : first + 100]
                answer = await client.get(
                    f"/v1/stores/{town.store_uid}/receipts", params={"message_ids": asked}
                )
                verdicts = [receipt["verdict"] for receipt in answer.json()["receipts"]]
                assert set(verdicts) == {"VERDICT_ACCEPTED"}
                assert len(verdicts) == len(asked)
