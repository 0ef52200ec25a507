"""Writes one line in the access log for each RPC, and counts and times it for Prometheus."""

from __future__ import annotations

import logging
import time
from typing import Any

import grpc
from prometheus_client import Counter, Gauge, Histogram

from common.context import get_call
from common.interceptors.wrap import Context, Handler, UnaryInterceptor

log = logging.getLogger(__name__)

_UNKNOWN = grpc.StatusCode.UNKNOWN

# Named as go-grpc-middleware names them, so that its dashboards fit.
_STARTED = Counter("grpc_server_started", "RPCs begun.", ["grpc_service", "grpc_method"])
_HANDLED = Counter(
    "grpc_server_handled", "RPCs ended.", ["grpc_service", "grpc_method", "grpc_code"]
)
_SECONDS = Histogram(
    "grpc_server_handling_seconds", "How long RPCs took.", ["grpc_service", "grpc_method"]
)
_UNDER_WAY = Gauge("grpc_server_in_flight", "RPCs under way.", ["grpc_service", "grpc_method"])


class ObserveInterceptor(UnaryInterceptor):
    """Sees what the interceptors after it made of the call."""

    async def around(self, method: str, handle: Handler, request: Any, context: Context) -> Any:
        service, name = method.lstrip("/").split("/")
        _STARTED.labels(service, name).inc()
        _UNDER_WAY.labels(service, name).inc()
        began = time.perf_counter()
        code = grpc.StatusCode.CANCELLED  # If not even an exception comes back.
        try:
            response = await handle(request, context)
            code = grpc.StatusCode.OK
            return response
        except grpc.aio.AbortError:
            code = _code_of(context)
            raise
        finally:
            seconds = time.perf_counter() - began
            _UNDER_WAY.labels(service, name).dec()
            _HANDLED.labels(service, name, code.name).inc()
            _SECONDS.labels(service, name).observe(seconds)
            call = get_call()
            log.info(
                "served",
                extra={
                    "method": method,
                    "code": code.name,
                    "milliseconds": round(seconds * 1000, 3),
                    "request_id": call.request_id,
                    "caller": call.identity,
                    "key_uid": call.key.uid if call.key else "",
                },
            )


def _code_of(context: Context) -> grpc.StatusCode:
    number: Any = context.code()  # grpc.aio gives a number, whatever its stubs say.
    return next((code for code in grpc.StatusCode if number in (code, code.value[0])), _UNKNOWN)
