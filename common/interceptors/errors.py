"""Turns what a handler raises into a status, and lets nothing else out."""

from __future__ import annotations

import logging
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from common.context import get_call
from common.errors import (
    Conflict,
    DependencyUnavailable,
    InternalError,
    InvalidRequest,
    MeshError,
)
from common.interceptors.wrap import Context, Handler, UnaryInterceptor
from common.log import describe_failure

log = logging.getLogger(__name__)

_LOCK_WAIT_TIMEOUT, _DEADLOCK = 1205, 1213


class _Unreadable:
    """Stands for a request whose bytes are no message of its type."""


class ErrorInterceptor(UnaryInterceptor):
    """Ends the RPC with the failure's own status, or with a bare `INTERNAL`."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await super().intercept_service(continuation, handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        read = handler.request_deserializer

        def deserialize(wire: bytes) -> Any:
            # What it raises, gRPC would tell the caller by itself, as UNKNOWN.
            try:
                return read(wire)
            except DecodeError:
                return _Unreadable()

        return handler._replace(request_deserializer=deserialize)

    async def around(self, method: str, handle: Handler, request: Any, context: Context) -> Any:
        try:
            if isinstance(request, _Unreadable):
                raise InvalidRequest({"request": "is no message of this method"})
            return await handle(request, context)
        except grpc.aio.AbortError:
            raise
        except MeshError as error:
            failure = error
        except Exception as error:
            failure = _as_mesh_error(error)
            told = describe_failure(error)
            if isinstance(failure, InternalError):
                level = logging.ERROR
            else:  # It is known where this comes from, and may come with every call for minutes.
                level = logging.WARNING
                del told["stack"]
            call = {"method": method, "request_id": get_call().request_id}
            log.log(level, "call failed", extra=call | told)
        await context.abort_with_status(failure.to_status())


def _as_mesh_error(error: Exception) -> MeshError:
    match error:
        case OperationalError(orig=BaseException(args=[int(number), *_])) if number in (
            _LOCK_WAIT_TIMEOUT,
            _DEADLOCK,
        ):
            return Conflict()
        case OperationalError() | InterfaceError() | PoolTimeoutError() | RedisError():
            return DependencyUnavailable()
        case DBAPIError(connection_invalidated=True):
            return DependencyUnavailable()
        case grpc.aio.AioRpcError() if error.code() in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        ):
            return DependencyUnavailable()
    return InternalError()
