"""Takes events in from where no script runs: as the query of an image's address.

Segment's and RudderStack's way to see that a mail was opened. The image is served
whatever becomes of the event, since a broken one would stand in the mail.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from google.rpc import status_pb2

from common.errors import InvalidRequest
from gateway.envelope import read_event
from gateway.errors import reason_of
from gateway.exchange import Request, Response, key_in_headers
from gateway.segment import Segment, key_in_query
from shoptrail.ingest.v1 import event_pb2

PIXEL_PATHS = {
    "/v1/pixel/identify": event_pb2.EVENT_TYPE_IDENTIFY,
    "/v1/pixel/track": event_pb2.EVENT_TYPE_TRACK,
    "/v1/pixel/page": event_pb2.EVENT_TYPE_PAGE,
    "/v1/pixel/screen": event_pb2.EVENT_TYPE_SCREEN,
    "/v1/pixel/group": event_pb2.EVENT_TYPE_GROUP,
    "/v1/pixel/alias": event_pb2.EVENT_TYPE_ALIAS,
    # RudderStack's.
    "/pixel/v1/track": event_pb2.EVENT_TYPE_TRACK,
    "/pixel/v1/page": event_pb2.EVENT_TYPE_PAGE,
}

_MAX_FIELDS = 200
_MAX_DEPTH = 8
# One transparent point.
_GIF = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00"
    b",\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x01D\x00;"
)


@dataclass(frozen=True, slots=True)
class PixelRoute:
    """A path whose `GET` is an event, and always answers with the image."""

    name: str
    default_type: event_pb2.EventType.ValueType
    segment: Segment
    now: Callable[[], datetime]
    logged: bool = False

    async def answer(self, request: Request, variables: Mapping[str, str]) -> Response:
        """The image, when the event has its verdict. `HEAD` is no event."""
        if request.method == "GET":
            received = self.now()
            body = _read_query(request.query)
            sent = read_event(body)
            key_text = key_in_headers(request.headers) or sent.write_key
            key = await self.segment.find_key(key_text or key_in_query(request.query), request)
            if refused := self.segment.refuse_for_rate(key):
                return Response(200, _GIF, b"image/gif", headers=refused.headers)
            await self.segment.record(
                sent, key, request, received=received, default_type=self.default_type
            )
        return Response(200, _GIF, b"image/gif")

    def refuse(self, failure: status_pb2.Status) -> Response:
        """The image all the same; a header says why there is no event."""
        reason = reason_of(failure).lower().encode()
        return Response(200, _GIF, b"image/gif", headers=((b"x-failure", reason),))


def pixel_routes(segment: Segment, now: Callable[[], datetime]) -> dict[str, PixelRoute]:
    """Every path that is a pixel, with and without `.gif` at its end."""
    return {
        path: PixelRoute(name, kind, segment, now)
        for name, kind in PIXEL_PATHS.items()
        for path in (name, f"{name}.gif")
    }


def _read_query(query: bytes) -> bytes:
    """The event that the query is: `data`, which is JSON in base64, or else its fields.

    A field may stand deep, as `properties.subject`. Raises `InvalidRequest`.
    """
    try:
        fields = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_FIELDS
        )
    except ValueError:
        raise InvalidRequest({"query": f"has more than {_MAX_FIELDS} fields"}) from None
    for name, value in fields:
        if name == "data":
            return _read_base64(value)
    event: dict[str, Any] = {}
    for name, value in fields:
        _put(event, name.split(".", _MAX_DEPTH), value)
    return msgspec.json.encode(event)


def _read_base64(text: str) -> bytes:
    # Either alphabet, with or without its padding; a plus that nobody escaped is a blank.
    text = text.replace(" ", "-").replace("+", "-").replace("/", "_").rstrip("=")
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise InvalidRequest({"data": "is not base64"}) from None


def _put(event: dict[str, Any], path: list[str], value: str) -> None:
    *parents, name = path
    place: Any = event
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):  # It has a value, and so no fields.
            return
    place.setdefault(name, value)
