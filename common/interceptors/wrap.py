"""The one way an interceptor gets around a handler: all our RPCs are unary."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Callable[[Any, Context], Awaitable[Any]]


class UnaryInterceptor(grpc.aio.ServerInterceptor):
    """A base for interceptors, which then only say what happens around a call.

    Calls of gRPC's own services, health and reflection, pass by it.
    """

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or handler.unary_unary is None or method.startswith("/grpc."):
            return handler
        handle = handler.unary_unary

        async def around(request: Any, context: Context) -> Any:
            return await self.around(method, handle, request, context)

        return grpc.unary_unary_rpc_method_handler(
            around, handler.request_deserializer, handler.response_serializer
        )

    @abstractmethod
    async def around(self, method: str, handle: Handler, request: Any, context: Context) -> Any:
        """What to do instead of, or besides, `handle(request, context)`."""
