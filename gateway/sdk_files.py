"""Serves analytics.js itself, for pages that load it by Segment's snippet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from google.rpc import status_pb2

from common.errors import RouteUnknown
from gateway.errors import error_response
from gateway.exchange import Request, Response, Route

SCRIPT_PATH = "/analytics.js/v1/{write_key}/analytics.min.js"
CHUNK_PATH = "/analytics-next/bundles/{file}"

_SCRIPT = "standalone.js"
_JAVASCRIPT = b"text/javascript; charset=utf-8"


@dataclass(frozen=True, slots=True)
class FileRoute:
    """A path that serves scripts by name."""

    name: str
    files: Mapping[str, Response]
    logged: bool = False

    async def answer(self, request: Request, variables: Mapping[str, str]) -> Response:
        """The script, which is the same for every key."""
        found = self.files.get(variables.get("file", _SCRIPT))
        if found is None:
            raise RouteUnknown
        return found

    def refuse(self, failure: status_pb2.Status) -> Response:
        """A failure in the shape of AIP-193."""
        return error_response(failure)


def file_routes(directory: Path | None) -> list[tuple[re.Pattern[str], Route]]:
    """Routes to the scripts in the directory, which are read now; none without one.

    It is `dist/umd` of the package `@segment/analytics-next`.
    """
    if directory is None:
        return []
    files = {
        path.name: Response(
            200,
            path.read_bytes(),
            _JAVASCRIPT,
            # The names of all others have a hash of what they hold.
            caching=b"public, max-age=300" if path.name == _SCRIPT else b"public, max-age=31536000",
        )
        for path in directory.glob("*.js")
    }
    return [
        (
            re.compile("/analytics[.]js/v1/(?P<write_key>[^/]+)/analytics(?:[.]min)?[.]js"),
            FileRoute(SCRIPT_PATH, files),
        ),
        (re.compile("/analytics-next/bundles/(?P<file>[^/]+)"), FileRoute(CHUNK_PATH, files)),
    ]
