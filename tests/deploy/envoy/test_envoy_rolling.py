"""Real processes, two of each that matters, come and go while shops send; nobody notices."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import secrets
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from common.client import open_channel
from deploy.calls import EDGE, GATEWAY, SERVICES
from deploy.envoy.settings import EGRESS_PORTS, MESH_PORT, METRICS_PORT, PROBE_PORT
from deploy.local.certificates import CertificateFiles
from deploy.local.mariadb import MariadbServer
from deploy.local.processes import Child, Program, kept_running
from shoptrail.keys.v1 import api_key_pb2, keys_pb2, keys_pb2_grpc
from shoptrail.maintenance.v1 import maintenance_pb2, maintenance_pb2_grpc
from tests.conftest import empty
from tests.deploy.envoy.conftest import ENVIRONMENT, edge_client
from tests.deploy.envoy.pods import Pod, Pods, eventually

REPLICAS = {GATEWAY: 2, "ingest": 2, "query": 1, "keys": 2, "maintenance": 1}
SENDERS = 4


@dataclass
class Town:
    """A whole mesh behind an edge, with what its processes are told."""

    edge: Pod
    gateways: list[Pod]
    children: Mapping[str, list[Child]]
    logs: Mapping[str, list[Path]]
    write_key: str
    secret_key: str
    store_uid: str
    operator: grpc.aio.Channel


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that it is sent, with the name of the service that made them."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, trace_pb2.Span]] = []

    async def Export(self, request: Any, context: Any) -> Any:
        for resource_spans in request.resource_spans:
            attributes = resource_spans.resource.attributes
            names = {each.key: each.value.string_value for each in attributes}
            for scope_spans in resource_spans.scope_spans:
                self.spans += [(names["service.name"], span) for span in scope_spans.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def of_trace(self, trace_id: str) -> dict[bytes, tuple[str, trace_pb2.Span]]:
        """The spans of a trace, by their ids."""
        return {
            span.span_id: (service, span)
            for service, span in self.spans
            if span.trace_id.hex() == trace_id
        }

    def describe(self, trace_id: str) -> list[str]:
        """What has come of a trace, a line for each span."""
        return [
            f"{service}: {span.name} {span.span_id.hex()} in {span.parent_span_id.hex()}"
            for service, span in self.of_trace(trace_id).values()
        ]


@pytest.fixture(scope="module")
async def collector() -> AsyncIterator[tuple[Collector, int]]:
    """A collector of traces, and its port."""
    collector = Collector()
    server = grpc.aio.server()
    add = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(collector, server)  # type: ignore[no-untyped-call]  # generated without types
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield collector, port
    await server.stop(None)


@pytest.fixture(scope="module")
async def town(
    collector: tuple[Collector, int],
    scratch: Path,
    issued: Mapping[str, CertificateFiles],
    mariadb_server: MariadbServer,
    redis_urls: Mapping[str, str],
) -> AsyncIterator[Town]:
    # Nothing is traced but what a test asks for.
    traced = replace(
        ENVIRONMENT,
        collector=f"127.0.0.1:{collector[1]}",
        sampled_percent=0.0,
        trusts_traces=True,
    )
    pods = Pods(scratch / "town", issued, traced)
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
            "TRACES_ENDPOINT": f"http://127.0.0.1:{collector[1]}",
            "TRACES_SAMPLED": "0",
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
        if pod.identity == "ingest":
            # Its own, which it finds again when it comes back.
            variables["JOURNAL_DIRECTORY"] = str(pod.directory / "journal")
        if pod.identity == "keys":
            variables["PEPPERS"] = peppers
        if pod.identity in ("ingest", "query", "maintenance"):
            variables["KEYS_ADDRESS"] = f"{pod.address}:{EGRESS_PORTS['keys']}"
        if pod.identity in ("query", "maintenance"):
            variables["INGEST_ADDRESS"] = f"{pod.address}:{EGRESS_PORTS['ingest']}"
        if pod.identity in ("ingest", "maintenance"):
            variables["SUBJECT_KEY"] = "0" * 64
        if pod.identity == "maintenance":
            variables["QUERY_ADDRESS"] = f"{pod.address}:{EGRESS_PORTS['query']}"
            variables["RECEIPT_KEY"] = "0" * 64
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
                    environment={**environment_of(pod), "OTEL_BSP_SCHEDULE_DELAY": "200"},
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

        async def knows_the_key() -> bool:
            answer = await http.get(
                f"/v1/stores/{store.store.uid}/receipts",
                params={"message_ids": "none"},
                headers={"Authorization": f"Bearer {texts[1]}"},
            )
            return answer.status_code == 200

        await eventually(knows_the_key, seconds=60)
        logs = {
            process: [pod.directory / "process.log" for pod in replicas]
            for process, replicas in by_process.items()
        }
        yield Town(
            edge, by_process[GATEWAY], children, logs, texts[0], texts[1], store.store.uid, channel
        )
    for service in SERVICES:
        await empty(mariadb_server, service)


@dataclass
class Shop:
    """Sends events without a pause, each once, and never tries again."""

    town: Town
    outcomes: Counter[tuple[int, str]] = field(default_factory=Counter)
    sent: int = 0
    failed_at: list[datetime] = field(default_factory=list)
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
                if outcome != (200, ""):
                    self.failed_at.append(datetime.now(UTC))
                async with self.more:
                    self.outcomes[outcome] += 1
                    self.more.notify_all()

    async def hear(self, count: int) -> None:
        """Wait for so many more answers."""
        goal = self.outcomes.total() + count
        async with self.more, asyncio.timeout(30):
            await self.more.wait_for(lambda: self.outcomes.total() >= goal)


async def test_one_trace_runs_from_the_edge_through_http_and_grpc_to_sql(
    town: Town, collector: tuple[Collector, int]
) -> None:
    trace_id, caller = "", secrets.token_hex(8)

    async def served() -> bool:
        nonlocal trace_id
        trace_id = secrets.token_hex(16)
        headers = {
            "Authorization": f"Bearer {town.secret_key}",
            "traceparent": f"00-{trace_id}-{caller}-01",
        }
        answer = await client.get(
            f"/v1/stores/{town.store_uid}/receipts",
            params={"message_ids": "none"},
            headers=headers,
        )
        return answer.status_code == 200

    async with edge_client(town.edge) as client:
        await eventually(served, seconds=30)

    def path_to_sql() -> list[tuple[str, str]]:
        """From the statement of Ingest to the edge."""
        spans = collector[0].of_trace(trace_id)
        path = []
        found = [
            span for service, span in spans.values() if (service, span.name) == ("ingest", "SELECT")
        ]
        step = found[0].span_id if found else b""
        while step in spans:
            service, span = spans[step]
            path.append((service, span.name))
            step = span.parent_span_id
        return path if step.hex() == caller else []

    async def complete() -> bool:
        return bool(path_to_sql())

    try:
        await eventually(complete, seconds=30)
    except TimeoutError:
        pytest.fail("\n".join(collector[0].describe(trace_id)))
    path = path_to_sql()
    method = "shoptrail.ingest.v1.Ingest/GetReceipts"
    # Process or proxy of each pod on the way; proxies have no better name for what they do.
    assert [service for service, _ in path] == [
        *("ingest", "ingest", "ingest"),
        *("gateway", "gateway", "gateway", "gateway"),
        "edge",
    ]
    assert path[0][1] == "SELECT"
    assert path[1][1] == path[4][1] == method
    assert path[5][1] == "GET /v1/stores/{store_uid}/receipts"
    spans = collector[0].of_trace(trace_id)
    told = " ".join(str(span) for _, span in spans.values())
    assert town.secret_key not in told
    # Nor what a request's address holds, which may be a key, nor whose it was.
    assert "message_ids" not in told
    assert town.store_uid not in told
    assert "python-httpx" not in told
    assert not any(
        attribute.key == "peer.address" and attribute.value.string_value != "-"
        for _, span in spans.values()
        for attribute in span.attributes
    )
    assert any(trace_id in log.read_text() for log in town.logs["ingest"])


async def test_a_scheduled_task_is_traced_to_redis(
    town: Town, collector: tuple[Collector, int]
) -> None:
    trace_id = secrets.token_hex(16)

    await maintenance_pb2_grpc.MaintenanceStub(town.operator).RunCron(
        maintenance_pb2.RunCronRequest(job="trim-runs"),
        timeout=20,
        metadata=(("traceparent", f"00-{trace_id}-{secrets.token_hex(8)}-01"),),
    )

    async def traced() -> bool:
        names = {span.name for _, span in collector[0].of_trace(trace_id).values()}
        return {"EVAL", "INSERT", "shoptrail.maintenance.v1.Maintenance/RunCron"} <= names

    try:
        await eventually(traced, seconds=30)
    except TimeoutError:
        pytest.fail("\n".join(collector[0].describe(trace_id)))


async def test_a_person_is_erased_everywhere_and_a_job_asks_keys(town: Town) -> None:
    keys = keys_pb2_grpc.KeysStub(town.operator)
    asked = keys_pb2.CreateKeyRequest(
        store_uid=town.store_uid, kind=api_key_pb2.KEY_KIND_SECRET, scopes=["privacy:write"]
    )
    of_store = (await keys.CreateKey(asked, timeout=5)).text
    clock = keys_pb2.CreateKeyRequest(kind=api_key_pb2.KEY_KIND_CRON)
    of_clock = (await keys.CreateKey(clock, timeout=5)).text
    cases = f"/v1/stores/{town.store_uid}/privacy-cases"
    async with edge_client(town.edge) as http:
        event = {"event": "Met", "userId": "ada-4711"}
        of_shop = {"Authorization": f"Bearer {town.write_key}"}
        assert (await http.post("/v1/track", json=event, headers=of_shop)).status_code == 200

        http.headers["Authorization"] = f"Bearer {of_store}"
        opened = await http.post(cases, json={"kind": "ERASE", "user_id": "ada-4711"})
        case = opened.json()["case"]

        async def done() -> bool:
            nonlocal case
            case = (await http.get(f"{cases}/{case['uid']}")).json()["case"]
            return bool(case["state"] == "CASE_STATE_DONE")

        await eventually(done, seconds=60)
        assert json.loads(case["receipt"]["content"])["erased"]["ingest.events"] == 1

        http.headers["Authorization"] = f"Bearer {of_clock}"
        for service in ("ingest", "query", "maintenance"):
            ran = await http.post(f"/v1/cron/{service}/clear-purged-stores:run", json={})
            assert ran.json()["outcome"].endswith("_RAN"), ran.text


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


def logged_around(town: Town, shops: list[Shop]) -> str:
    """What all processes and proxies logged in the seconds in which something failed."""
    seconds = {
        f"{time - timedelta(seconds=before):%Y-%m-%dT%H:%M:%S}"
        for shop in shops
        for time in shop.failed_at
        for before in range(4)
    }
    lines = [
        f"{log.parent.name} {line}"
        for log in sorted(town.edge.directory.parent.glob("*/*.log"))
        for line in log.read_text(errors="replace").splitlines()
        if any(second in line for second in seconds) and '"status":200' not in line
    ]
    return "\n".join(lines[:200])


def count_starts(log: Path) -> int:
    """How often the process whose log this is has begun to serve."""
    return log.read_text().count('"serving"') if log.exists() else 0


async def are_all_well(town: Town, process: str) -> bool:
    """Whether all who call a process count all of its replicas among those that are well."""
    well = re.compile(
        rf'^envoy_cluster_membership_healthy{{.*cluster_name="{process}".*}} ([0-9]+)$',
        re.MULTILINE,
    )
    callers = [town.edge] if process == GATEWAY else town.gateways
    async with httpx.AsyncClient() as client:
        for pod in callers:
            told = await client.get(f"http://{pod.address}:{PROBE_PORT}/stats/prometheus")
            if well.findall(told.text) != [str(len(town.children[process]))]:
                return False
    return True


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
            # One at a time: nobody promises that both may be away at once.
            await eventually(partial(are_all_well, town, process), seconds=60)
            for shop in shops:
                await shop.hear(3)

    outcomes = sum((shop.outcomes for shop in shops), Counter[tuple[int, str]]())
    assert set(outcomes) == {(200, "")}, f"{outcomes}\n{logged_around(town, shops)}"
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
