"""Wires Ingest up and serves it."""

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime

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
from services.ingest.config import IngestConfig
from services.ingest.heads import make_heads
from services.ingest.jobs import ingest_jobs
from services.ingest.journal import JournalNotValid
from services.ingest.journals import open_journals
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
        stack.enter_context(traces("ingest", config))
        database = open_database(config.database_url.get_secret_value())
        stack.push_async_callback(database.dispose)
        await stack.enter_async_context(kept_tidy(database))
        redis = open_redis(config.redis_url.get_secret_value())
        stack.push_async_callback(redis.aclose)
        journals = None
        if config.journal_directory is not None:
            journals = await stack.enter_async_context(
                open_journals(
                    config.journal_directory,
                    byte_count=config.journal_bytes,
                    shard_count=config.shard_count,
                    microseconds=lambda: time.time_ns() // 1000,
                )
            )
        page_tokens = PageTokens(config.page_token_key.get_secret_value())
        subject_digests = SubjectDigests(config.subject_key.get_secret_value())
        services = [INGEST, MAINTENANCE]
        keyring = await stack.enter_async_context(
            keeping_keys(config, certificates, proxy="ingest" if config.behind_proxy else "")
        )
        server = build_server(services, proxy="ingest", verify=keyring.verify)
        ingest = IngestServicer(
            database,
            now=lambda: datetime.now(UTC),
            shard_count=config.shard_count,
            event_bytes=config.event_bytes,
            page_tokens=page_tokens,
            subject_digests=subject_digests,
            journals=journals,
        )
        heads = asyncio.create_task(make_heads(database, shard_count=config.shard_count))
        stack.callback(heads.cancel)
        if journals is None:
            await heads  # There is nothing that it could do before.
        ingest_pb2_grpc.add_IngestServicer_to_server(ingest, server)
        cron = CronServicer(
            "ingest",
            database=database,
            redis=redis,
            jobs=ingest_jobs(subject_digests, keyring.keys),
            page_tokens=page_tokens,
        )
        maintenance_pb2_grpc.add_MaintenanceServicer_to_server(cron, server)
        await stack.enter_async_context(cron.measured())
        await serve(server, services, config, on_stop=cron.stop)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except JournalNotValid as fault:
        raise SystemExit(str(fault)) from None
