"""An HTTP connection that holds senders to a size and a time, which uvicorn's own doesn't."""

from __future__ import annotations

import asyncio
import http

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024

# What takes a body gives up before, and says so.
_BODY_MARGIN_SECONDS = 5.0


class BoundedConnection(HttpToolsProtocol):
    """Refuses a request whose head is larger than 64 KiB, or whose parts come too slowly.

    Times are only noted here, and looked at by `close_if_late`: timers of their own
    would be two for each request.
    """

    # Of the request that is coming in; both None between two requests.
    _head_since: float | None = None
    _body_since: float | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait for a first request."""
        super().connection_made(transport)
        self._head_since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Read on, unless the head has become too large."""
        if self._head_since is None and self._body_since is None:
            self._head_since = self.loop.time()
            self._head_bytes = 0
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_since is not None and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()

    def on_headers_complete(self) -> None:
        """Begin with the request, unless its head is too large."""
        self._head_since = None
        self._body_since = self.loop.time()
        # The bytes that came may be the body's too.
        if self._head_bytes > MAX_HEAD_BYTES and self._measure_head() > MAX_HEAD_BYTES:
            self._refuse_head()
            raise ValueError("the head is too large")  # Ends the parser's work.
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        self._body_since = None
        super().on_message_complete()

    def close_if_late(self, *, head_seconds: float, body_seconds: float) -> None:
        """Close if the head, or after that the body, has been coming for longer than this."""
        now = self.loop.time()
        if self._head_since is not None and now - self._head_since > head_seconds:
            self._refuse(http.HTTPStatus.REQUEST_TIMEOUT, "The request took too long to come.")
        elif (
            self._body_since is not None
            and now - self._body_since > body_seconds + _BODY_MARGIN_SECONDS
        ):
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; called by uvicorn."""
        self._refuse(http.HTTPStatus.BAD_REQUEST, msg)

    def _measure_head(self) -> int:
        # Each line has a colon, a blank and its end.
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse_head(self) -> None:
        self._refuse(
            http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"The request's head is larger than {MAX_HEAD_BYTES} bytes.",
        )

    def _refuse(self, status: http.HTTPStatus, message: str) -> None:
        """Answer in the shape that SDKs understand, and close."""
        if self.transport.is_closing():
            return
        body = msgspec.json.encode(
            {"success": False, "code": status.name.lower(), "message": message, "error": message}
        )
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()
