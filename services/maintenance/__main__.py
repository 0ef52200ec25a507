"""Wires Maintenance up and serves it, while its caseworker works on privacy cases."""

import asyncio
from contextlib import AsyncExitStack

import grpc

from common.client import open_channel
from common.config import read_config
from common.cron.servicer import SERVICE as MAINTENANCE
from common.cron.servicer import CronServicer
from common.db import kept_tidy, open_database
from common.log import start_logging
from common.metrics import start_metrics
from common.mutex import open_redis
from common.page_token import PageTokens
from common.server import build_server, serve
from common.tls import read_certificates
from common.tracing import traces
from services.maintenance.caseworker import INGEST, QUERY, Caseworker, Services
from services.maintenance.config import MaintenanceConfig
from services.maintenance.jobs import maintenance_jobs
from services.maintenance.privacy import SERVICE as PRIVACY
from services.maintenance.privacy import PrivacyServicer
from services.maintenance.receipts import ReceiptSigner
from services.maintenance.subject import SubjectKeyNames, SubjectSeal
from shoptrail.ingest.v1 import ingest_pb2_grpc
from shoptrail.keys.v1 import keys_pb2, keys_pb2_grpc
from shoptrail.maintenance.v1 import maintenance_pb2_grpc, privacy_pb2_grpc
from shoptrail.query.v1 import query_pb2_grpc

KEYS = keys_pb2.DESCRIPTOR.services_by_name["Keys"].full_name


async def main() -> None:
    """Serve until told to stop."""
    config = read_config(MaintenanceConfig)
    start_logging("maintenance", config.log_level)
    start_metrics(config.metrics_address)
    certificates = read_certificates(config)
    async with AsyncExitStack() as stack:
        stack.enter_context(traces("maintenance", config))
        database = open_database(config.database_url.get_secret_value())
        stack.push_async_callback(database.dispose)
        await stack.enter_async_context(kept_tidy(database))
        redis = open_redis(config.redis_url.get_secret_value())
        stack.push_async_callback(redis.aclose)

        def reach(address: str, service: str, identity: str) -> grpc.aio.Channel:
            proxy = "maintenance" if config.behind_proxy else ""
            channel = open_channel(address, service, identity, certificates, proxy=proxy)
            stack.push_async_callback(channel.close)
            return channel

        ingest = ingest_pb2_grpc.IngestStub(reach(config.ingest_address, INGEST, "ingest"))
        query = query_pb2_grpc.QueryStub(reach(config.query_address, QUERY, "query"))
        keys = keys_pb2_grpc.KeysStub(reach(config.keys_address, KEYS, "keys"))

        page_tokens = PageTokens(config.page_token_key.get_secret_value())
        seal = SubjectSeal(config.subject_key.get_secret_value())
        signer = ReceiptSigner(
            config.receipt_key.get_secret_value(), older_public_keys=config.older_public_keys()
        )
        caseworker = Caseworker(
            database,
            Services(ingest, query),
            seal=seal,
            key_names=SubjectKeyNames(config.subject_key.get_secret_value()),
            signer=signer,
        )
        services = [MAINTENANCE, PRIVACY]
        server = build_server(services, proxy="maintenance")
        cron = CronServicer(
            "maintenance",
            database=database,
            redis=redis,
            jobs=maintenance_jobs(keys),
            page_tokens=page_tokens,
        )
        maintenance_pb2_grpc.add_MaintenanceServicer_to_server(cron, server)
        privacy = PrivacyServicer(
            database, caseworker=caseworker, seal=seal, signer=signer, page_tokens=page_tokens
        )
        privacy_pb2_grpc.add_PrivacyServicer_to_server(privacy, server)
        await stack.enter_async_context(cron.measured())
        async with asyncio.TaskGroup() as tasks:
            working = tasks.create_task(caseworker.run())
            await serve(server, services, config, on_stop=cron.stop)
            working.cancel()


if __name__ == "__main__":
    asyncio.run(main())
