"""Ingest, Query and Maintenance as production serves them, on each database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from common.client import open_channel
from common.db import Database
from common.page_token import PageTokens
from common.tls import Certificates
from services.ingest import servicer as ingest_room
from services.ingest.repository import add_heads
from services.ingest.subjects import SubjectDigests
from services.maintenance.caseworker import INGEST, QUERY
from services.maintenance.privacy import SERVICE, PrivacyServicer
from services.maintenance.subject import SubjectSeal
from services.query import servicer as query_room
from services.query.column_keeper import ColumnKeeper
from services.query.duck import DuckColumns
from services.query.freshness import Sightings
from services.query.handover import Handover
from services.query.projector import Projector
from services.query.tables import column_copies
from shoptrail.ingest.v1 import ingest_pb2_grpc
from shoptrail.maintenance.v1 import privacy_pb2_grpc
from shoptrail.query.v1 import query_pb2_grpc
from tests.conftest import Databases, Serving
from tests.privacy.desk import SIGNER, Desk, worker
from tests.privacy.shop import NOW, SHARDS, Shop, stop_at_end


@pytest.fixture
async def shop(databases: Databases, serving: Serving, tmp_path: Path) -> AsyncIterator[Shop]:
    async with AsyncExitStack() as stack:
        opened = {
            name: await stack.enter_async_context(databases(name))
            for name in ("ingest", "query", "maintenance")
        }
        yield await stack.enter_async_context(
            open_shop(opened, serving, tmp_path / "columns.duckdb")
        )


@asynccontextmanager
async def open_shop(
    opened: dict[str, Database], serving: Serving, columns_path: Path
) -> AsyncIterator[Shop]:
    """A shop over databases, with Ingest and Query at work."""
    async with AsyncExitStack() as stack:
        async with opened["ingest"].begin() as transaction:
            await add_heads(transaction, shard_count=SHARDS)
        async with opened["query"].begin() as transaction:
            # MySQL goes on with what it was asked for by who was stopped since.
            await transaction.execute(column_copies.delete())
        page_tokens = PageTokens(bytes(32))
        ingest = ingest_room.IngestServicer(
            opened["ingest"],
            now=lambda: NOW,
            shard_count=SHARDS,
            event_bytes=32 * 1024,
            page_tokens=page_tokens,
            subject_digests=SubjectDigests(bytes(32)),
        )
        columns = DuckColumns(columns_path)
        stack.push_async_callback(columns.close)
        sightings = Sightings()
        query = query_room.QueryServicer(
            opened["query"],
            sightings=sightings,
            columns=columns,
            page_tokens=page_tokens,
            now=lambda: NOW + timedelta(minutes=1),
        )

        def register_ingest(server: grpc.aio.Server) -> None:
            ingest_pb2_grpc.add_IngestServicer_to_server(ingest, server)

        def register_query(server: grpc.aio.Server) -> None:
            query_pb2_grpc.add_QueryServicer_to_server(query, server)

        to_ingest = await stack.enter_async_context(serving([ingest_room.SERVICE], register_ingest))
        to_query = await stack.enter_async_context(serving([query_room.SERVICE], register_query))
        handover = Handover()
        projector = Projector(
            opened["query"],
            ingest_pb2_grpc.IngestStub(to_ingest("query")),
            sightings=sightings,
            handover=handover,
            longest_wait=timedelta(seconds=1),
        )
        keeper = ColumnKeeper(opened["query"], columns, handover=handover)
        for running in (projector.run(), keeper.run()):
            stack.push_async_callback(stop_at_end(asyncio.create_task(running)))
        yield Shop(
            databases=opened,
            ingest_address=to_ingest.address,
            query_address=to_query.address,
            gateway=ingest_pb2_grpc.IngestStub(to_ingest("gateway")),
            ingest=ingest_pb2_grpc.IngestStub(to_ingest("maintenance")),
            query=query_pb2_grpc.QueryStub(to_query("maintenance")),
            operator=query_pb2_grpc.QueryStub(to_query("operator")),
            columns=columns,
        )


@pytest.fixture
async def desk(
    shop: Shop, serving: Serving, certificates: Mapping[str, Certificates]
) -> AsyncIterator[Desk]:
    database = shop.databases["maintenance"]
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(
                open_channel(address, service, "localhost", certificates["maintenance"])
            )
            for address, service in ((shop.ingest_address, INGEST), (shop.query_address, QUERY))
        ]
        caseworker = worker(database, *channels)
        servicer = PrivacyServicer(
            database,
            caseworker=caseworker,
            seal=SubjectSeal(bytes(32)),
            signer=SIGNER,
            page_tokens=PageTokens(bytes(32)),
        )

        def register(server: grpc.aio.Server) -> None:
            privacy_pb2_grpc.add_PrivacyServicer_to_server(servicer, server)

        connect = await stack.enter_async_context(serving([SERVICE], register))
        stub = privacy_pb2_grpc.PrivacyStub(connect("gateway"))
        yield Desk(shop, database, stub, caseworker)
