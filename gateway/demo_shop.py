"""Serves the demo shop, where a configuration asks for it: pages, and what its panel shows.

The shop's pages have a publishable key, as any shop's. The panel also shows what the
store's reports say: those are read here, with a secret key that no browser gets to see. So
whoever can reach the gateway can read these few reports of the demo store.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from google.rpc import status_pb2

from common.errors import RouteUnknown
from gateway.errors import error_response
from gateway.exchange import Request, Response, Route
from gateway.storefront_files import BUILT
from gateway.transcoding import Transcoder

_KEY_PLACE = b"DEMO_WRITE_KEY"
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    b" connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    b" require-trusted-types-for 'script'; trusted-types 'none'"
)
_PAGE_HEADERS = (
    (b"content-security-policy", _POLICY),
    (b"referrer-policy", b"same-origin"),
)
_CONTENT_TYPES = {".js": b"text/javascript; charset=utf-8", ".css": b"text/css; charset=utf-8"}
_REPORTS = {
    "events": "visitor-events",
    "counts": "reports/event-counts",
    "revenue": "reports/revenue",
}
"""What the panel may read, and its path below the store's."""


class DemoStore(msgspec.Struct, frozen=True):
    """The store whose shop this is."""

    store_uid: str
    write_key: str
    """Publishable: stands in the pages."""
    reading_key: str
    """Secret: reads events and reports, and should do no more."""


@dataclass(frozen=True, slots=True)
class PageRoute:
    """Any page of the shop: one document, whose script shows what is at the address."""

    store_file: Path
    document: bytes
    name: str = "/demo"
    logged: bool = False

    async def answer(self, request: Request, variables: Mapping[str, str]) -> Response:
        """The document, with the store's key in it."""
        key = _read_store(self.store_file).write_key.encode()
        body = self.document.replace(_KEY_PLACE, key)
        return Response(200, body, b"text/html; charset=utf-8", _PAGE_HEADERS)

    def refuse(self, failure: status_pb2.Status) -> Response:
        """A failure in the shape of AIP-193."""
        return error_response(failure)


@dataclass(frozen=True, slots=True)
class AssetRoute:
    """The shop's scripts and styles, whose names have a hash of what they hold."""

    assets: Mapping[str, Response]
    name: str = "/demo/assets/{file}"
    logged: bool = False

    async def answer(self, request: Request, variables: Mapping[str, str]) -> Response:
        """The file."""
        found = self.assets.get(variables["file"])
        if found is None:
            raise RouteUnknown
        return found

    def refuse(self, failure: status_pb2.Status) -> Response:
        """A failure in the shape of AIP-193."""
        return error_response(failure)


@dataclass(frozen=True, slots=True)
class ReportRoute:
    """The few reports that the panel shows."""

    store_file: Path
    transcoder: Transcoder
    name: str = "/demo/reports/{report}"
    logged: bool = False

    async def answer(self, request: Request, variables: Mapping[str, str]) -> Response:
        """What the demo store's report says to whoever has the secret key."""
        below = _REPORTS.get(variables["report"])
        store = _read_store(self.store_file)
        found = below and self.transcoder.find("GET", f"/v1/stores/{store.store_uid}/{below}")
        if not found:
            raise RouteUnknown
        route, path_variables = found
        # As the shop's own server would ask, and not the browser.
        headers = {b"authorization": f"Bearer {store.reading_key}".encode()}
        asked = replace(request, headers=headers, header_lines=list(headers.items()))
        return await route.answer(asked, path_variables)

    def refuse(self, failure: status_pb2.Status) -> Response:
        """A failure in the shape of AIP-193."""
        return error_response(failure)


def demo_routes(
    store_file: Path | None, transcoder: Transcoder, built: Path = BUILT / "demo"
) -> list[tuple[re.Pattern[str], Route]]:
    """Routes to the demo shop of the store that the file names; none without a file.

    The file may be written, or change, later: until then there is no shop.
    """
    document = built / "index.html"
    if store_file is None or not document.exists():
        return []
    assets = {
        path.name: Response(
            200,
            path.read_bytes(),
            _CONTENT_TYPES[path.suffix],
            caching=b"public, max-age=31536000, immutable",
        )
        for path in (built / "assets").iterdir()
    }
    return [
        (re.compile("/demo/assets/(?P<file>[^/]+)"), AssetRoute(assets)),
        (re.compile("/demo/reports/(?P<report>[^/]+)"), ReportRoute(store_file, transcoder)),
        (re.compile("/demo(?:/.*)?"), PageRoute(store_file, document.read_bytes())),
    ]


def _read_store(path: Path) -> DemoStore:
    try:
        return msgspec.json.decode(path.read_bytes(), type=DemoStore)
    except (OSError, msgspec.DecodeError):
        raise RouteUnknown from None
