"""Tells browser SDKs what they ask for before they send anything: their settings.

Without an answer they don't start, and the page's events are lost. So they get one
for each key that works, and also while nobody can say whether it does.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec
from google.rpc import status_pb2

from common.errors import DependencyUnavailable, Overloaded
from gateway.exchange import Request, Response, key_in_headers
from gateway.segment import Segment, key_in_query, segment_error
from gateway.senders import Senders

SETTINGS_PATH = "/v1/projects/{write_key}/settings"
SETTINGS_PATTERN = re.compile("/v1/projects/(?P<write_key>[^/]+)/settings/?")
# RudderStack's.
SOURCE_CONFIG_PATH = "/sourceConfig"

# For so long a page may start with a key that was revoked.
_CACHING = b"public, max-age=300"
_HOST = re.compile(rb"[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")
_URL = re.compile(r"(https?)://([^/]+)/?")


@dataclass(frozen=True, slots=True)
class SettingsRoute:
    """A path that tells a key's settings."""

    name: str
    tell: Callable[[Request, Mapping[str, str]], Awaitable[Response]]
    logged: bool = False

    async def answer(self, request: Request, variables: Mapping[str, str]) -> Response:
        """The settings, as JSON."""
        return await self.tell(request, variables)

    def refuse(self, failure: status_pb2.Status) -> Response:
        """A failure in the shape that SDKs understand."""
        return segment_error(failure)


class SdkSettings:
    """Answers SDKs that ask what to do.

    `public_url` is where browsers find the gateway, such as `https://events.shop.example`.
    If empty, it is where this request found it.
    """

    def __init__(self, segment: Segment, senders: Senders, public_url: str) -> None:
        self._segment = segment
        self._senders = senders
        self._public_url = public_url

    def route(self) -> SettingsRoute:
        """For analytics.js, with the key in the path."""
        return SettingsRoute(SETTINGS_PATH, self._tell_settings)

    def source_config_route(self) -> SettingsRoute:
        """For RudderStack's SDK, with the key in the header or in the query."""
        return SettingsRoute(SOURCE_CONFIG_PATH, self._tell_source_config)

    async def _tell_settings(self, request: Request, variables: Mapping[str, str]) -> Response:
        key_text = variables["write_key"]
        works = await self._check(key_text, request)
        api_key = await self._find_latest(key_text) if works else key_text
        # Nothing else: for a plan, say, the SDK would fetch one more script, and without
        # that not start.
        settings = {"integrations": {"Segment.io": {"apiKey": api_key, **self._find_host(request)}}}
        caching = _CACHING if works else b"no-store"
        return Response(200, msgspec.json.encode(settings), caching=caching)

    async def _tell_source_config(self, request: Request, variables: Mapping[str, str]) -> Response:
        key_text = key_in_headers(request.headers) or key_in_query(request.query)
        works = await self._check(key_text, request)
        off = {"enabled": False}
        source = {
            "id": "shoptrail",
            "name": "Shoptrail",
            "writeKey": await self._find_latest(key_text) if works else key_text,
            "enabled": True,
            "config": {"statsCollection": {"errors": off, "metrics": off}},
            "connections": [],
            "destinations": [],
        }
        return Response(200, msgspec.json.encode({"source": source}))

    async def _check(self, key_text: str, request: Request) -> bool:
        """True if the key works, False if nobody can say now; raises if it doesn't."""
        try:
            await self._segment.find_key(key_text, request)
        except (DependencyUnavailable, Overloaded):
            return False
        return True

    async def _find_latest(self, key_text: str) -> str:
        """The key to send with: after a rotation the new one, while pages still have the old."""
        return await self._segment.find_successor(key_text) or key_text

    def _find_host(self, request: Request) -> dict[str, str]:
        """Where to send events, since the SDK would otherwise send them to Segment."""
        if found := _URL.fullmatch(self._public_url):
            protocol, host = found.groups()
        else:
            given = request.headers.get(b"host", b"")
            if not _HOST.fullmatch(given):
                return {}
            host = given.decode("ascii")
            protocol = "https" if self._senders.is_secure(request) else "http"
        return {"apiHost": f"{host}/v1", "protocol": protocol}
