"""A request as the routes see it, and what they answer."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from google.rpc import status_pb2

from gateway.body import Body

JSON = b"application/json"
GPC_PATH = "/.well-known/gpc.json"

Headers = tuple[tuple[bytes, bytes], ...]

_AUTHORIZATION = re.compile(rb"(basic|bearer) +(\S+) *", re.IGNORECASE)


# Not frozen, as those that follow: to make one would take three times as long, for each request.
@dataclass(slots=True)
class Request:
    """An HTTP request, its body not read yet."""

    method: str
    path: str
    query: bytes
    """Percent-encoded, as it came."""
    headers: Mapping[bytes, bytes]
    """By lower-case name; of those that came several times, the last."""
    header_lines: Sequence[tuple[bytes, bytes]]
    """All of them, in order."""
    body: Body
    peer: str = ""
    """The IP address at the other end of the connection, if known."""
    request_id: str = ""
    route: str = ""
    """The name of the route that serves it, once that is found."""


@dataclass(slots=True)
class Response:
    """An HTTP answer, less the headers that its connection adds."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: Headers = ()
    caching: bytes = b"no-store"
    """Who may keep it how long, as `Cache-Control` says it."""
    chunks: AsyncGenerator[bytes] | None = None
    """If set, the body are these, as they come."""
    is_last: bool = False
    """Whether the connection takes no request after it."""


Application = Callable[[Request], Awaitable[Response]]


class Route(Protocol):
    """A path that is served by a method."""

    @property
    def name(self) -> str:
        """The path, with its variables' names in braces; for logs and metrics."""

    @property
    def logged(self) -> bool:
        """Whether answers below 500 get a line in the access log."""

    async def answer(self, request: Request, variables: Mapping[str, str]) -> Response:
        """Serve the request, whose path has these variables."""

    def refuse(self, failure: status_pb2.Status) -> Response:
        """A failure in the shape that this route's callers understand."""


def key_in_headers(headers: Mapping[bytes, bytes]) -> str | None:
    """The key's text in `Authorization`: a bearer token, or the user of Basic.

    None if there is no such header, or nothing of the kind in it.
    """
    found = _AUTHORIZATION.fullmatch(headers.get(b"authorization", b""))
    if found is None:
        return None
    scheme, credentials = found.groups()
    if scheme.lower() == b"bearer":
        return str(credentials, "latin-1")
    try:
        user = b64decode(credentials + b"==").partition(b":")[0]
    except ValueError:
        return None
    return str(user, "latin-1") or None
