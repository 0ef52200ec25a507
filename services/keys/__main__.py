"""Runs Keys: wires its parts together and serves until told to stop."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime

from common.config import read_config
from common.cron import servicer as cron
from common.db import open_database
from common.log import start_logging
from common.metrics import start_metrics
from common.mutex import open_redis
from common.page_token import PageTokens
from common.server import build_server, serve
from common.tracing import traces
from services.keys import servicer as keys
from services.keys.config import KeysConfig
from services.keys.jobs import all_jobs
from shoptrail.keys.v1 import keys_pb2_grpc
from shoptrail.maintenance.v1 import maintenance_pb2_grpc


async def main() -> None:
    """Serve with the configuration in the environment."""
    config = read_config(KeysConfig)
    start_logging("keys", config.log_level)
    start_metrics(config.metrics_address)
    async with AsyncExitStack() as stack:
        stack.enter_context(traces("keys", config))
        database = open_database(config.database_url.get_secret_value())
        stack.push_async_callback(database.dispose)
        redis = open_redis(config.redis_url.get_secret_value())
        stack.push_async_callback(redis.aclose)
        page_tokens = PageTokens(config.page_token_key.get_secret_value())

        services = [keys.SERVICE, cron.SERVICE]
        server = build_server(services, proxy="keys")
        servicer = keys.KeysServicer(
            database,
            peppers=config.peppers,
            page_tokens=page_tokens,
            now=lambda: datetime.now(UTC),
        )
        keys_pb2_grpc.add_KeysServicer_to_server(servicer, server)
        jobs = cron.CronServicer(
            "keys",
            database=database,
            redis=redis,
            jobs=all_jobs(config.peppers),
            page_tokens=page_tokens,
        )
        maintenance_pb2_grpc.add_MaintenanceServicer_to_server(jobs, server)
        await stack.enter_async_context(jobs.measured())

        def stop() -> None:
            servicer.stop()
            jobs.stop()

        await serve(server, services, config, on_stop=stop)


if __name__ == "__main__":
    asyncio.run(main())
