"""Serves the dashboard's files, as `make web-dashboard` built them, at the gateway's root."""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from google.rpc import status_pb2

from common.errors import RouteUnknown
from gateway.errors import error_response
from gateway.exchange import Headers, Request, Response, Route

ASSET_PATH = "/assets/{file}"

_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
).encode()
_PAGE_HEADERS: Headers = (
    (b"content-security-policy", _POLICY),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
_GZIPPED: Headers = ((b"content-encoding", b"gzip"), (b"vary", b"Accept-Encoding"))
_HTML = b"text/html; charset=utf-8"
_CONTENT_TYPES = {
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
# Their names have a hash of what they hold.
_FOR_EVER = b"public, max-age=31536000, immutable"

_NOT_BUILT = b"""<!doctype html>
<html lang="en"><title>Shoptrail</title>
<h1>The dashboard was not built</h1>
<p>Run <code>make web-dashboard</code> where the gateway's code is, and start the gateway again.
All else works: <a href="/openapi.json">what there is to ask</a>.</p>
</html>
"""


@dataclass(frozen=True, slots=True)
class _File:
    plain: Response
    gzipped: Response

    def for_request(self, request: Request) -> Response:
        takes_gzip = b"gzip" in request.headers.get(b"accept-encoding", b"")
        return self.gzipped if takes_gzip else self.plain


@dataclass(frozen=True, slots=True)
class DashboardRoute:
    """A path that serves files by name."""

    name: str
    files: Mapping[str, _File]
    logged: bool = False

    async def answer(self, request: Request, variables: Mapping[str, str]) -> Response:
        """The file, which is the same for everybody."""
        found = self.files.get(variables.get("file", ""))
        if found is None:
            raise RouteUnknown
        return found.for_request(request)

    def refuse(self, failure: status_pb2.Status) -> Response:
        """A failure in the shape of AIP-193."""
        return error_response(failure)


def dashboard_routes(
    directory: Path,
) -> tuple[Mapping[str, Route], list[tuple[re.Pattern[str], Route]]]:
    """Routes to the pages by their path, and to all other files by patterns.

    The directory is read now. If nothing was built there, the root says how to.
    """
    index = directory / "index.html"
    if not index.is_file():
        missing = Response(404, _NOT_BUILT, _HTML, headers=_PAGE_HEADERS)
        return {"/": DashboardRoute("/", {"": _File(missing, missing)})}, []
    # One document for all pages: its script reads the path.
    page = DashboardRoute("/", {"": _read(index, _HTML, caching=b"no-cache")})
    names: list[str] = msgspec.json.decode((directory / "pages.json").read_bytes())
    assets = {
        path.name: _read(path, _CONTENT_TYPES[path.suffix], caching=_FOR_EVER)
        for path in (directory / "assets").iterdir()
        if path.suffix in _CONTENT_TYPES
    }
    return (
        {f"/{name}": page for name in ("", *names)},
        [(re.compile("/assets/(?P<file>[^/]+)"), DashboardRoute(ASSET_PATH, assets))],
    )


def _read(path: Path, content_type: bytes, *, caching: bytes) -> _File:
    raw = path.read_bytes()
    return _File(
        Response(200, raw, content_type, headers=_PAGE_HEADERS, caching=caching),
        Response(
            200,
            gzip.compress(raw, mtime=0),
            content_type,
            headers=(*_PAGE_HEADERS, *_GZIPPED),
            caching=caching,
        ),
    )
