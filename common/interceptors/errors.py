"""Turns what a handler raises into a status, and lets nothing else out."""

from __future__ import annotations

import logging
from typing import Any

import grpc
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from common.context import get_call
from common.errors import Conflict, DependencyUnavailable, InternalError, MeshError
from common.interceptors.wrap import Context, Handler, UnaryInterceptor
from common.log import describe_failure

log = logging.getLogger(__name__)

_LOCK_WAIT_TIMEOUT, _DEADLOCK = 1205, 1213


class ErrorInterceptor(UnaryInterceptor):
    """Ends the RPC with the failure's own status, or with a bare `INTERNAL`."""

    async def around(self, method: str, handle: Handler, request: Any, context: Context) -> Any:
        try:
            return await handle(request, context)
        except grpc.aio.AbortError:
            raise
        except MeshError as error:
            failure = error
        except Exception as error:
            failure = _as_mesh_error(error)
            log.error(
                "call failed",
                extra={
                    "method": method,
                    "request_id": get_call().request_id,
                    **describe_failure(error),
                },
            )
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
