"""A channel that goes on with new certificates when its own are replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from common.tls import Certificates

# How long calls of the channel before may take to end.
_GRACE_SECONDS = 60.0


class RenewedChannel(grpc.aio.Channel):
    """Makes its calls over a channel that `connect` makes, a new one once certificates change.

    The files are looked at before a call, at most every `look_seconds`. Calls under way
    end where they began. Must be made inside the running loop.
    """

    def __init__(
        self,
        connect: Callable[[Certificates], grpc.aio.Channel],
        certificates: Certificates,
        *,
        look_seconds: float,
    ) -> None:
        self._connect = connect
        self._certificates = certificates
        self._look_seconds = look_seconds
        self._loop = asyncio.get_running_loop()
        self._look_at = self._loop.time() + look_seconds
        self._channel = connect(certificates)
        self._closing: set[asyncio.Task[None]] = set()

    def current(self) -> grpc.aio.Channel:
        """The channel to make a call over."""
        if self._loop.time() >= self._look_at:
            self._look_at = self._loop.time() + self._look_seconds
            renewed = self._certificates.read_again()
            if renewed is not None:
                self._certificates = renewed
                former, self._channel = self._channel, self._connect(renewed)
                closing = self._loop.create_task(former.close(_GRACE_SECONDS))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
        return self._channel

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return _RenewedCall(self, lambda channel: channel.unary_unary(method, *args, **kwargs))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self.current().unary_stream(method, *args, **kwargs)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self.current().stream_unary(method, *args, **kwargs)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self.current().stream_stream(method, *args, **kwargs)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()

    async def close(self, grace: float | None = None) -> None:
        for closing in self._closing:
            closing.cancel()
        await self._channel.close(grace)

    async def __aenter__(self) -> RenewedChannel:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.close()


class _RenewedCall:
    """A method, called over whichever channel is current."""

    def __init__(self, owner: RenewedChannel, bind: Callable[[grpc.aio.Channel], Any]) -> None:
        self._owner = owner
        self._bind = bind
        self._bound_to: grpc.aio.Channel | None = None
        self._call: Any = None

    def __call__(self, request: Any, **how: Any) -> Any:
        channel = self._owner.current()
        if channel is not self._bound_to:
            self._bound_to, self._call = channel, self._bind(channel)
        return self._call(request, **how)
