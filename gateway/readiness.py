"""Says whether this process should be sent requests."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc
import msgspec
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.exchange import Response

_RETRY_SECONDS = 0.25
_CHECK_SECONDS = 1.0


class Readiness:
    """Ready once every service has been seen healthy, until draining starts.

    A service that fails later leaves the gateway ready: it serves what doesn't
    need that service, and says 503 to the rest.
    """

    def __init__(self, channels: Mapping[str, grpc.aio.Channel]) -> None:
        self._channels = channels
        self._unseen = set(channels)
        self._draining = False

    @property
    def draining(self) -> bool:
        """Whether the process is about to stop."""
        return self._draining

    async def see_services(self) -> None:
        """Return when each service has been healthy once."""
        await asyncio.gather(*(self._see(service) for service in self._channels))

    def start_draining(self) -> None:
        """Be ready no more."""
        self._draining = True

    def response(self) -> Response:
        """200 or 503, with what is missing."""
        ready = not self._unseen and not self._draining
        body = {
            "ready": ready,
            "draining": self._draining,
            "waiting_for": sorted(self._unseen),
        }
        return Response(200 if ready else 503, msgspec.json.encode(body))

    async def _see(self, service: str) -> None:
        health: Any = health_pb2_grpc.HealthStub(self._channels[service])
        while service in self._unseen:
            try:
                answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=_CHECK_SECONDS)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    self._unseen.discard(service)
                    return
            except grpc.aio.AioRpcError:
                pass  # Not up yet; the answer of /readyz says so.
            await asyncio.sleep(_RETRY_SECONDS)
