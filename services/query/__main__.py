"""Wires Query up and serves it, while its projector follows the log."""

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

from common.client import open_channel
from common.config import read_config
from common.cron.servicer import SERVICE as MAINTENANCE
from common.cron.servicer import CronServicer
from common.db import kept_tidy, open_database
from common.keyring import keeping_keys
from common.log import start_logging
from common.metrics import start_metrics
from common.mutex import open_redis
from common.page_token import PageTokens
from common.server import build_server, serve
from common.tls import read_certificates
from common.tracing import traces
from services.query.column_keeper import ColumnKeeper
from services.query.config import QueryConfig
from services.query.duck import DuckColumns
from services.query.freshness import Sightings
from services.query.handover import Handover
from services.query.jobs import query_jobs
from services.query.projector import LOG_SERVICE, Projector
from services.query.servicer import SERVICE as QUERY
from services.query.servicer import QueryServicer
from services.query.silence import silence_measured
from shoptrail.ingest.v1 import ingest_pb2_grpc
from shoptrail.maintenance.v1 import maintenance_pb2_grpc
from shoptrail.query.v1 import query_pb2_grpc


async def main() -> None:
    """Serve until told to stop."""
    config = read_config(QueryConfig)
    start_logging("query", config.log_level)
    start_metrics(config.metrics_address)
    certificates = read_certificates(config)
    async with AsyncExitStack() as stack:
        stack.enter_context(traces("query", config))
        database = open_database(config.database_url.get_secret_value())
        stack.push_async_callback(database.dispose)
        await stack.enter_async_context(kept_tidy(database))
        redis = open_redis(config.redis_url.get_secret_value())
        stack.push_async_callback(redis.aclose)
        channel = open_channel(
            config.ingest_address,
            LOG_SERVICE,
            "ingest",
            certificates,
            proxy="query" if config.behind_proxy else "",
        )
        stack.push_async_callback(channel.close)
        sightings = Sightings()
        columns = DuckColumns(
            Path(config.columns_path) if config.columns_path else None,
            memory_mib=config.columns_memory_mib,
        )
        stack.push_async_callback(columns.close)
        page_tokens = PageTokens(config.page_token_key.get_secret_value())

        services = [QUERY, MAINTENANCE]
        keyring = await stack.enter_async_context(
            keeping_keys(config, certificates, proxy="query" if config.behind_proxy else "")
        )
        server = build_server(services, proxy="query", verify=keyring.verify)
        query_pb2_grpc.add_QueryServicer_to_server(
            QueryServicer(
                database,
                sightings=sightings,
                columns=columns,
                page_tokens=page_tokens,
                now=lambda: datetime.now(UTC),
            ),
            server,
        )
        cron = CronServicer(
            "query",
            database=database,
            redis=redis,
            jobs=query_jobs(keyring.keys),
            page_tokens=page_tokens,
        )
        maintenance_pb2_grpc.add_MaintenanceServicer_to_server(cron, server)
        await stack.enter_async_context(cron.measured())
        await stack.enter_async_context(silence_measured(database, every_seconds=60))
        ingest = ingest_pb2_grpc.IngestStub(channel)
        handover = Handover()
        projector = Projector(database, ingest, sightings=sightings, handover=handover)
        keeper = ColumnKeeper(database, columns, handover=handover)
        await keeper.start()
        # A projector that fails for good ends the process, which is then started anew.
        async with asyncio.TaskGroup() as tasks:
            projection = tasks.create_task(projector.run())
            keeping = tasks.create_task(keeper.run())
            await serve(server, services, config, on_stop=cron.stop)
            projection.cancel()
            keeping.cancel()


if __name__ == "__main__":
    asyncio.run(main())
