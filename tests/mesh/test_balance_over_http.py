"""Whatever bytes two gateways are sent at once, the balance sheet holds to the event."""

from __future__ import annotations

import asyncio
import gzip
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from deploy.local import environment
from deploy.local.certificates import CertificateFiles
from deploy.local.ports import reserved
from tests.mesh.conftest import RunningMesh, Shop
from tests.services.ingest.test_balance import ODDITIES, events

COUNTED = ("received", "accepted", "duplicates", "rejected", "quota")


class Wrapping(Enum):
    """How a batch travels."""

    PLAIN = auto()
    CHUNKED = auto()
    GZIP = auto()
    GZIP_CHUNKED = auto()
    CUT_SHORT = auto()
    GZIP_CUT_SHORT = auto()
    BOMB = auto()


INTACT = (Wrapping.PLAIN, Wrapping.CHUNKED, Wrapping.GZIP, Wrapping.GZIP_CHUNKED)
BATCHES = st.lists(
    st.tuples(
        st.lists(events() | events() | events() | ODDITIES, max_size=6),
        st.sampled_from(INTACT * 3 + tuple(Wrapping)),
    ),
    min_size=1,
    max_size=5,
)
Batches = Sequence[tuple[Sequence[bytes], Wrapping]]


@pytest.fixture(scope="module")
async def gateways(mesh: RunningMesh) -> AsyncIterator[tuple[str, str]]:
    """The URLs of the mesh's gateway and of a second one before the same services."""
    tls = mesh.directory / "tls"
    with reserved(1) as (port,):
        addresses = environment.Addresses(
            gateway=f"127.0.0.1:{port}", grpc=mesh.announcement["grpc"], metrics={}
        )
        certificates = CertificateFiles(
            certificate=tls / "gateway.pem",
            key=tls / "gateway.key",
            authority=tls / "authority.pem",
        )
        secrets = environment.keep_secrets(mesh.directory / "secrets.json")
        variables = environment.of_gateway(
            addresses, certificates, demo_shop=mesh.directory / "demo.json", secrets=secrets
        )
        second = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway"), env={**os.environ, **variables}
        )
        url = f"http://127.0.0.1:{port}"
        await until_ready(url)
        yield mesh.url, url
        second.terminate()
        assert await second.wait() == 0


async def until_ready(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as http, asyncio.timeout(30):
        while True:
            try:
                if (await http.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


@settings(
    max_examples=8,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # Each try takes a mesh some time: none to shrink.
    suppress_health_check=list(HealthCheck),
)
@given(batches=BATCHES)
async def test_the_balance_holds_through_two_gateways_whatever_is_sent(
    mesh: RunningMesh, gateways: tuple[str, str], batches: Batches
) -> None:
    shop = await mesh.new_shop()

    # Each is sent by both, all at once: as by clients that lost the answer.
    async with senders(gateways, shop) as clients:
        answers = await asyncio.gather(
            *(send(client, *batch) for batch in batches for client in clients)
        )

    told: Counter[str] = Counter()
    for (payloads, wrapping), answer in zip(
        (batch for batch in batches for _ in gateways), answers, strict=True
    ):
        assert answer.status_code in (200, 400, 413)
        if answer.status_code == 200:
            counts = {name: answer.json()[name] for name in COUNTED}
            assert counts["received"] == sum(counts.values()) - counts["received"]
            assert wrapping not in INTACT or counts["received"] >= min(len(payloads), 1)
            told.update(counts)
        assert answer.status_code == 200 or wrapping not in INTACT or has_oddity(payloads)
    kept = await verdicts_of(mesh, shop)
    assert kept == {name: told[name] for name in COUNTED}
    stored = await list_events(mesh, shop, told["accepted"])
    ids = [event["message_id"] for event in stored]
    assert len(ids) == len(set(ids)) == told["accepted"]


def has_oddity(payloads: Sequence[bytes]) -> bool:
    """Whether one of the events may hide where it ends, which can cost the batch."""
    return any(_is_odd(payload) for payload in payloads)


def _is_odd(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return True
    return not payload.startswith(b"{") or payload.count(b"{") != payload.count(b"}")


@asynccontextmanager
async def senders(gateways: tuple[str, str], shop: Shop) -> AsyncIterator[list[httpx.AsyncClient]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=url, auth=(shop.write_key, ""), timeout=20)
            )
            for url in gateways
        ]


async def send(
    client: httpx.AsyncClient, payloads: Sequence[bytes], wrapping: Wrapping
) -> httpx.Response:
    body = b'{"batch":[%b]}' % b",".join(payloads)
    if wrapping in (Wrapping.GZIP, Wrapping.GZIP_CHUNKED, Wrapping.GZIP_CUT_SHORT):
        body = gzip.compress(body)
    if wrapping in (Wrapping.CUT_SHORT, Wrapping.GZIP_CUT_SHORT):
        body = body[: len(body) // 2]
    if wrapping is Wrapping.BOMB:
        body = gzip.compress(bytes(16 * 1024 * 1024))
    content: Any = body
    if wrapping in (Wrapping.CHUNKED, Wrapping.GZIP_CHUNKED):
        content = in_chunks(body)
    return await client.post("/v1/batch", content=content)


async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
    for chunk in _cut(body):
        yield chunk


def _cut(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 7):
        yield body[start : start + 7]


async def verdicts_of(mesh: RunningMesh, shop: Shop) -> dict[str, int]:
    now = datetime.now(UTC)
    async with mesh.client(shop.secret_key) as http:
        answer = await http.get(
            f"/v1/stores/{shop.store_uid}/verdicts",
            params={
                "begin_time": (now - timedelta(hours=2)).isoformat(),
                "end_time": (now + timedelta(hours=2)).isoformat(),
            },
        )
    total = answer.json()["total"]
    fields = {"duplicates": "duplicate_count"}
    # Counts of 64 bits are texts in the JSON of Protobuf.
    return {name: int(total[fields.get(name, f"{name}_count")]) for name in COUNTED}


async def list_events(mesh: RunningMesh, shop: Shop, count: int) -> list[dict[str, Any]]:
    """What is listed once it is `count` events, or what there is after 10 s."""
    async with mesh.client(shop.secret_key) as http:
        for _ in range(200):
            answer = await http.get(
                f"/v1/stores/{shop.store_uid}/events", params={"page_size": 500}
            )
            listed: list[dict[str, Any]] = answer.json()["events"]
            if len(listed) >= count:
                break
            await asyncio.sleep(0.05)
    return listed
