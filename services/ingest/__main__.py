"""Wires Ingest up and serves it."""

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime

from common.config import read_config
from common.cron.servicer import SERVICE as MAINTENANCE
from common.cron.servicer import CronServicer
from common.db import open_database
from common.keyring import keeping_keys
from common.log import start_logging
from common.metrics import start_metrics
from common.mutex import open_redis
from common.page_token import PageTokens
from common.server import build_server, serve
from common.tls import read_certificates
from services.ingest.config import IngestConfig
from services.ingest.jobs import ingest_jobs
from services.ingest.repository import add_heads
from services.ingest.servicer import SERVICE as INGEST
from services.ingest.servicer import IngestServicer
from services.ingest.subjects import SubjectDigests
from shoptrail.ingest.v1 import ingest_pb2_grpc
from shoptrail.maintenance.v1 import maintenance_pb2_grpc


async def main() -> None:
    """Serve until told to stop."""
    config = read_config(IngestConfig)
    start_logging("ingest", config.log_level)
    start_metrics(config.metrics_address)
    certificates = read_certificates(config)
    async with AsyncExitStack() as stack:
        database = open_database(config.database_url.get_secret_value())
        stack.push_async_callback(database.dispose)
        redis = open_redis(config.redis_url.get_secret_value())
        stack.push_async_callback(redis.aclose)
        async with database.begin() as transaction:
            await add_heads(transaction, shard_count=config.shard_count)

        page_tokens = PageTokens(config.page_token_key.get_secret_value())
        subject_digests = SubjectDigests(config.subject_key.get_secret_value())
        services = [INGEST, MAINTENANCE]
        keyring = await stack.enter_async_context(keeping_keys(config, certificates))
        server = build_server(services, verify=keyring.verify)
        ingest = IngestServicer(
            database,
            now=lambda: datetime.now(UTC),
            shard_count=config.shard_count,
            event_bytes=config.event_bytes,
            page_tokens=page_tokens,
            subject_digests=subject_digests,
        )
        ingest_pb2_grpc.add_IngestServicer_to_server(ingest, server)
        cron = CronServicer(
            "ingest",
            database=database,
            redis=redis,
            jobs=ingest_jobs(subject_digests),
            page_tokens=page_tokens,
        )
        maintenance_pb2_grpc.add_MaintenanceServicer_to_server(cron, server)
        await stack.enter_async_context(cron.measured())
        await serve(server, services, config, on_stop=cron.stop)


if __name__ == "__main__":
    asyncio.run(main())
