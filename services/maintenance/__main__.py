"""Wires Maintenance up and serves it."""

import asyncio
from contextlib import AsyncExitStack

from common.config import read_config
from common.cron.servicer import SERVICE as MAINTENANCE
from common.cron.servicer import CronServicer
from common.db import open_database
from common.log import start_logging
from common.metrics import start_metrics
from common.mutex import open_redis
from common.page_token import PageTokens
from common.server import build_server, serve
from common.tracing import traces
from services.maintenance.config import MaintenanceConfig
from services.maintenance.jobs import maintenance_jobs
from shoptrail.maintenance.v1 import maintenance_pb2_grpc


async def main() -> None:
    """Serve until told to stop."""
    config = read_config(MaintenanceConfig)
    start_logging("maintenance", config.log_level)
    start_metrics(config.metrics_address)
    async with AsyncExitStack() as stack:
        stack.enter_context(traces("maintenance", config))
        database = open_database(config.database_url.get_secret_value())
        stack.push_async_callback(database.dispose)
        redis = open_redis(config.redis_url.get_secret_value())
        stack.push_async_callback(redis.aclose)

        services = [MAINTENANCE]
        server = build_server(services, proxy="maintenance")
        cron = CronServicer(
            "maintenance",
            database=database,
            redis=redis,
            jobs=maintenance_jobs(),
            page_tokens=PageTokens(config.page_token_key.get_secret_value()),
        )
        maintenance_pb2_grpc.add_MaintenanceServicer_to_server(cron, server)
        await stack.enter_async_context(cron.measured())
        await serve(server, services, config, on_stop=cron.stop)


if __name__ == "__main__":
    asyncio.run(main())
