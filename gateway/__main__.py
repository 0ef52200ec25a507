"""Runs the gateway: `python -m gateway`."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import uvloop
from prometheus_client import REGISTRY

from common.client import open_channel
from common.collector import collect_less
from common.config import read_config
from common.log import start_logging
from common.server import told_to_stop
from common.tls import read_certificates
from common.tracing import traces, tracing
from gateway.app import build_gateway
from gateway.config import GatewayConfig
from gateway.http_server import serve_http
from gateway.readiness import Readiness
from gateway.traced import TracedApplication

log = logging.getLogger("gateway")


async def main() -> None:
    config = read_config(GatewayConfig)
    start_logging("gateway", config.log_level)
    certificates = read_certificates(config)
    async with AsyncExitStack() as stack:
        stack.enter_context(traces("gateway", config))
        channels = {}
        for name, address in config.service_addresses().items():
            service = f"shoptrail.{name}.v1.{name.capitalize()}"
            channels[name] = open_channel(
                address,
                service,
                name,
                certificates,
                proxy="gateway" if config.behind_proxy else "",
            )
            stack.push_async_callback(channels[name].close)
        readiness = Readiness(channels)
        gateway = build_gateway(
            channels,
            settings=config,
            readiness=readiness,
            registry=REGISTRY,
            now=lambda: datetime.now(UTC),
            monotonic=time.monotonic,
        )
        seeing = asyncio.create_task(readiness.see_services())
        stack.callback(seeing.cancel)
        staying_current = asyncio.create_task(gateway.stay_current())
        stack.callback(staying_current.cancel)
        async with serve_http(
            TracedApplication(gateway) if tracing() else gateway,
            config.listen_address,
            grace_seconds=config.grace_seconds,
            head_seconds=config.head_seconds,
            body_seconds=config.body_seconds,
        ):
            collect_less()
            log.info("serving", extra={"address": config.listen_address})
            await told_to_stop()
            # Say so first and serve on while the news spreads, as the services do.
            readiness.start_draining()
            await asyncio.sleep(config.drain_seconds)
    log.info("stopped")


if __name__ == "__main__":
    uvloop.run(main())
