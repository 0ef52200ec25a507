"""Query as production serves it, on each database, beside a log in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import datetime, timedelta

import grpc
import pytest

from common.cron import servicer as cron
from common.db import Database
from common.mutex import open_redis
from common.page_token import PageTokens
from services.query import servicer as query
from services.query.duck import DuckColumns
from services.query.freshness import Sightings
from services.query.jobs import query_jobs
from services.query.projector import LOG_SERVICE
from shoptrail.ingest.v1 import ingest_pb2_grpc
from shoptrail.maintenance.v1 import maintenance_pb2_grpc
from shoptrail.query.v1 import query_pb2_grpc
from tests.conftest import NOBODY, Databases, Serving
from tests.services.query.fake_ingest import NOON, FakeIngest
from tests.services.query.scene import ReadingFrom, Scene


@pytest.fixture
async def database(databases: Databases) -> AsyncIterator[Database]:
    """Query's own."""
    async with databases("query") as opened:
        yield opened


@pytest.fixture
def reading_from(serving: Serving) -> ReadingFrom:
    """Serves a fake Ingest; gives the stub by which Query calls it."""

    @asynccontextmanager
    async def serve(ingest: FakeIngest) -> AsyncIterator[ingest_pb2_grpc.IngestAsyncStub]:
        def register(server: grpc.aio.Server) -> None:
            ingest_pb2_grpc.add_IngestServicer_to_server(ingest, server)

        async with serving([LOG_SERVICE], register) as connect:
            yield ingest_pb2_grpc.IngestStub(connect("query"))

    return serve


@asynccontextmanager
async def closing_columns(columns: DuckColumns) -> AsyncIterator[DuckColumns]:
    yield columns
    await columns.close()


@pytest.fixture
async def scene(
    database: Database, serving: Serving, redis_urls: Mapping[str, str]
) -> AsyncIterator[Scene]:
    """Query's server without a projector: tests put into the read models what they need."""
    page_tokens = PageTokens(bytes(32))
    sightings = Sightings()

    def now() -> datetime:
        return NOON + timedelta(minutes=20)

    async with (
        aclosing(open_redis(redis_urls["query"])) as redis,
        closing_columns(DuckColumns()) as columns,
    ):

        def register(server: grpc.aio.Server) -> None:
            query_pb2_grpc.add_QueryServicer_to_server(
                query.QueryServicer(
                    database,
                    sightings=sightings,
                    columns=columns,
                    page_tokens=page_tokens,
                    now=now,
                ),
                server,
            )
            maintenance_pb2_grpc.add_MaintenanceServicer_to_server(
                cron.CronServicer(
                    "query",
                    database=database,
                    redis=redis,
                    jobs=query_jobs(NOBODY),
                    page_tokens=page_tokens,
                ),
                server,
            )

        async with serving([query.SERVICE, cron.SERVICE], register) as connect:
            yield Scene(
                database=database,
                sightings=sightings,
                columns=columns,
                query=query_pb2_grpc.QueryStub(connect("gateway")),
                operator=query_pb2_grpc.QueryStub(connect("operator")),
                cron=maintenance_pb2_grpc.MaintenanceStub(connect("cron")),
            )
