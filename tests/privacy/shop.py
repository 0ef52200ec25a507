"""A store with its events, what Ingest and Query keep of them, and what a person does there."""

from __future__ import annotations

import asyncio
import importlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from sqlalchemy import select

from common.db import Database
from common.uid import new_uid
from services.ingest.repository import get_log_head
from services.query import repository as query_repository
from services.query.duck import DuckColumns
from shoptrail.ingest.v1 import ingest_pb2, ingest_pb2_grpc
from shoptrail.privacy.v1.subject_pb2 import Subject
from shoptrail.query.v1 import query_pb2, query_pb2_grpc

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SHARDS = 2


def stop_at_end(task: asyncio.Task[Any]) -> Callable[[], Awaitable[None]]:
    async def stop() -> None:
        task.cancel()
        await asyncio.wait([task])

    return stop


@dataclass
class Shop:
    """A store, what is sent to it, and what is behind it."""

    databases: dict[str, Database]
    ingest_address: str
    query_address: str
    gateway: ingest_pb2_grpc.IngestAsyncStub
    ingest: ingest_pb2_grpc.IngestAsyncStub
    """As Maintenance calls it."""
    query: query_pb2_grpc.QueryAsyncStub
    operator: query_pb2_grpc.QueryAsyncStub
    columns: DuckColumns
    store_uid: str = field(default_factory=lambda: new_uid("sto"))

    async def send(self, *payloads: bytes) -> list[int]:
        request = ingest_pb2.AppendRequest()
        submission = request.submissions.add(store_uid=self.store_uid, payloads=payloads)
        submission.receive_time.FromDatetime(NOW)
        while True:
            try:
                answer = await self.gateway.Append(request, timeout=20)
                return list(answer.results[0].verdicts)
            except grpc.aio.AioRpcError as error:
                # On a machine with much to do a lock may take too long; senders then try again.
                assert error.code() is grpc.StatusCode.ABORTED

    async def all_followed(self, *, within_seconds: float = 60) -> None:
        """Return when Query has taken in all that Ingest has, changes too."""
        async with asyncio.timeout(within_seconds):
            while True:
                if await self._has_followed():
                    return
                await asyncio.sleep(0.02)

    async def _has_followed(self) -> bool:
        heads = {}
        for shard in range(SHARDS):
            async with self.databases["ingest"].read() as snapshot:
                heads[shard] = await get_log_head(snapshot, shard)
        async with self.databases["query"].read() as snapshot:
            generations = await query_repository.list_current_generations(snapshot)
            reached = [
                {one.shard: one for one in await query_repository.list_cursors(snapshot, number)}
                for number in generations
            ]
        reached.append({one.shard: one for one in await self.columns.cursors()})
        return bool(generations) and all(
            shard in cursors
            and cursors[shard].position == head.position
            and cursors[shard].change_number == head.change_number
            for cursors in reached
            for shard, head in heads.items()
        )

    async def rebuilt(self) -> tuple[int, int]:
        """Make all figures anew; the generation that answered, and the one that does now."""
        async with self.databases["query"].read() as snapshot:
            before = await query_repository.find_live_generation(snapshot)
        await self.operator.RebuildFigures(query_pb2.RebuildFiguresRequest(), timeout=5)
        async with asyncio.timeout(60):
            while True:
                async with self.databases["query"].read() as snapshot:
                    live = await query_repository.find_live_generation(snapshot)
                if live != before:
                    return before, live
                await asyncio.sleep(0.02)

    async def resolve(self, **ids: list[str]) -> Subject:
        request = ingest_pb2.ResolveSubjectRequest(store_uid=self.store_uid, subject=Subject(**ids))
        return (await self.ingest.ResolveSubject(request, timeout=30)).subject


PLANTED = ("ada-4711", "phone-4711", "ada@planted.example", "planted-order", "planted words")
"""What must be found nowhere when the person is erased."""


def event(kind: str, **fields: Any) -> bytes:
    return json.dumps({"type": kind, "messageId": new_uid("evt"), **fields}).encode()


def of_ada(
    chance: random.Random, number: int = 4711, *, order_count: int = 20, days: float = 0.25
) -> bytes:
    """Something that says a lot about the person. Who has another number is somebody else."""
    user, browser = {"userId": f"ada-{number}"}, {"anonymousId": f"phone-{number}"}
    who = chance.choice([user, browser])
    if chance.random() < 0.3:
        who = user | browser
    name = chance.choice(
        ["page", "Products Searched", "Order Completed", "Order Refunded", "Product Viewed", "Met"]
    )
    told = {
        "order_id": f"planted-order-{number}-{chance.randrange(order_count)}",
        "refund_id": f"planted-order-{number}-refund-{chance.randrange(3)}",
        "query": "planted words",
        "coupon": "planted words",
        "email": "ada@planted.example",
        "product_id": "tea",
        "name": "Tea",
        "total": chance.randrange(10_000) / 100,
        "currency": "EUR",
        "products": [{"product_id": "tea", "name": "Tea", "price": 2.5, "note": "planted words"}],
        "comment": "planted words",
    }
    path = f"/of/ada-{number}"
    return happened(name, chance, told, words="planted words", path=path, days=days, **who)


def of_somebody(chance: random.Random, *, person_count: int = 30, days: float = 0.25) -> bytes:
    """What others do meanwhile."""
    number = chance.randrange(person_count)
    who: dict[str, Any] = chance.choice(
        [{"userId": f"u{number}"}, {"anonymousId": f"b{number}"}, {"userId": f"u{number}"}]
    )
    if chance.random() < 0.2:
        browser = chance.randrange(person_count)
        return event("identify", userId=f"u{number}", anonymousId=f"b{browser}")
    name = chance.choice(
        ["page", "Products Searched", "Order Completed", "Order Refunded", "Product Viewed"]
    )
    told = {
        "order_id": f"order-{chance.randrange(person_count + 10)}",
        "query": chance.choice(["tea", "cups"]),
        "product_id": "tea",
        "name": "Tea",
        "total": chance.randrange(10_000) / 100,
        "currency": "EUR",
        "products": [{"product_id": chance.choice(["tea", "cup"]), "price": 2.5}],
    }
    path = chance.choice(["/", "/tea"])
    return happened(name, chance, told, words="mail", path=path, days=days, **who)


def happened(
    name: str,
    chance: random.Random,
    told: dict[str, Any],
    *,
    words: str,
    path: str,
    days: float,
    **who: str,
) -> bytes:
    context = {
        "traits": {"email": "ada@planted.example"} if "ada-4711" in who.values() else {},
        "page": {"path": path, "referrer": f"https://{words.replace(' ', '-')}.example/"},
        "campaign": {"source": words},
        "userAgent": f"Mozilla/5.0 (Linux; Android 14) Mobile {words}",
    }
    time = NOW - timedelta(days=days * chance.random())
    fields = {"context": context, "timestamp": time.isoformat(), **who}
    if name == "page":
        return event("page", name=words, **fields)
    return event("track", event=name, properties=told, **fields)


async def planted_in(shop: Shop, *planted: str) -> list[str]:
    """Where these texts stand in the shop's tables, as `planted_in_tables` looks."""
    return await planted_in_tables(shop.databases, *planted)


async def planted_in_tables(databases: Mapping[str, Database], *planted: str) -> list[str]:
    """Where these texts stand: which columns of all tables of services, by their metadata."""
    found = []
    for service, database in databases.items():
        metadata = importlib.import_module(f"services.{service}.tables").metadata
        async with database.read() as snapshot:
            for table in metadata.sorted_tables:
                async for row in await snapshot.stream(select(table)):
                    whole = str(tuple(row))
                    if not any(one in whole for one in planted):
                        continue
                    for column, value in row._mapping.items():
                        text = value.decode(errors="replace") if isinstance(value, bytes) else value
                        if any(one in str(text) for one in planted):
                            found.append(f"{service}.{table.name}.{column}")
    return found


@asynccontextmanager
async def others_sending(shop: Shop, chance: random.Random) -> AsyncIterator[list[int]]:
    """Others, and the person too, send for as long as the block takes; gives the verdicts."""
    got: list[int] = []

    async def keep_sending() -> None:
        while True:
            events = [of_somebody(chance) for _ in range(10)]
            got.extend(await shop.send(*events, of_ada(chance)))
            await asyncio.sleep(0.02)

    sending = asyncio.create_task(keep_sending())
    try:
        yield got
    finally:
        sending.cancel()
        await asyncio.wait([sending])
        if not sending.cancelled() and sending.exception():
            raise AssertionError("a writer failed") from sending.exception()
