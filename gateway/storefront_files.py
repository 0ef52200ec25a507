"""Serves the storefront script, which shops' pages load."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from google.rpc import status_pb2

from gateway.errors import error_response
from gateway.exchange import Headers, Request, Response

BUILT = Path(__file__).parent / "web" / "storefront" / "dist"
"""Where `make web-storefront` puts what it builds."""

_JAVASCRIPT = b"text/javascript; charset=utf-8"
_HEADERS: Headers = (
    (b"vary", b"Accept-Encoding"),
    # Also for pages that only load what says that it may be loaded from anywhere.
    (b"cross-origin-resource-policy", b"cross-origin"),
)


@dataclass(frozen=True, slots=True)
class ScriptRoute:
    """A path that serves a script, compressed, and only once to those who keep it."""

    name: str
    plain: Response
    compressed: Response
    tag: bytes
    logged: bool = False

    async def answer(self, request: Request, variables: Mapping[str, str]) -> Response:
        """The script, or 304 if the browser has it."""
        if self.tag in request.headers.get(b"if-none-match", b""):
            return Response(304, b"", _JAVASCRIPT, self.plain.headers, self.plain.caching)
        if b"gzip" in request.headers.get(b"accept-encoding", b""):
            return self.compressed
        return self.plain

    def refuse(self, failure: status_pb2.Status) -> Response:
        """A failure in the shape of AIP-193."""
        return error_response(failure)


def script_routes(built: Path = BUILT) -> dict[str, ScriptRoute]:
    """A route to each script that was built, by its path; they are read now."""
    return {f"/{path.name}": _route_to(path) for path in sorted(built.glob("shoptrail*.js"))}


def _route_to(path: Path) -> ScriptRoute:
    script = path.read_bytes()
    tag = b'"%b"' % sha256(script).hexdigest()[:16].encode()
    headers: Headers = ((b"etag", tag), *_HEADERS)
    # Long enough for a visit, and short enough for a repair to arrive within the hour.
    caching = b"public, max-age=3600"
    return ScriptRoute(
        f"/{path.name}",
        Response(200, script, _JAVASCRIPT, headers, caching),
        Response(
            200,
            gzip.compress(script, 9, mtime=0),
            _JAVASCRIPT,
            (*headers, (b"content-encoding", b"gzip")),
            caching,
        ),
        tag,
    )
