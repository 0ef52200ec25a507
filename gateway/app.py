"""The ASGI application: finds who serves a request, and answers whatever comes of it."""

from __future__ import annotations

import http
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any

import grpc
import msgspec
from google.rpc import code_pb2, status_pb2
from prometheus_client import CollectorRegistry

from common.errors import RouteUnknown
from common.log import describe_failure
from common.uid import new_uid
from gateway.body import SenderGoneError
from gateway.coalescer import Coalescer
from gateway.errors import error_response, to_failure
from gateway.exchange import Headers, Receive, Request, Response, Route, Send
from gateway.keyring import Keyring
from gateway.metrics import Metrics
from gateway.openapi import describe_api
from gateway.readiness import Readiness
from gateway.segment import Segment, is_segment_path, segment_error
from gateway.transcoding import Transcoder
from shoptrail.ingest.v1.ingest_pb2_grpc import IngestStub
from shoptrail.keys.v1.keys_pb2_grpc import KeysStub

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_ORIGIN = re.compile(rb"[!-~]{1,512}")

_NO_VARIABLES: Mapping[str, str] = {}
_EVERY_ANSWER: Headers = (
    (b"access-control-expose-headers", b"Retry-After, X-Request-Id"),
    (b"vary", b"Origin"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)
# By name, since `*` does not cover Authorization: all that SDKs were seen to ask for.
_PREFLIGHT = Response(
    204,
    b"",
    headers=(
        (b"access-control-allow-methods", b"GET, POST, PATCH, DELETE, OPTIONS"),
        (
            b"access-control-allow-headers",
            b"Authorization, Content-Type, Content-Encoding, X-Retry-Count, X-Request-Id,"
            b" X-Write-Key, AnonymousId, SentAt, Rsa-Retry-Attempt, Rsa-Retry-Reason,"
            b" Rsa-Since-Last-Attempt, Rsa-Since-First-Attempt, Rsa-Recovered",
        ),
        (b"access-control-max-age", b"86400"),
    ),
)


@dataclass(frozen=True, slots=True)
class PlainRoute:
    """A route whose answer depends on nothing in the request."""

    name: str
    respond: Callable[[], Response]
    logged: bool = True

    async def answer(self, request: Request, variables: Mapping[str, str]) -> Response:
        """What there is to say."""
        return self.respond()

    def refuse(self, failure: status_pb2.Status) -> Response:
        """A failure in the shape of AIP-193."""
        return error_response(failure)


def _raise_unknown() -> Response:
    raise RouteUnknown


# Browsers ask before almost every request: too often for the log.
_PREFLIGHT_ROUTE = PlainRoute("preflight", lambda: _PREFLIGHT, logged=False)
_UNKNOWN_ROUTE = PlainRoute("unknown", _raise_unknown)


class Gateway:
    """Serves every path of the mesh's HTTP side."""

    def __init__(
        self,
        *,
        segment: Mapping[str, Route],
        fixed: Mapping[str, Route],
        transcoder: Transcoder,
        readiness: Readiness,
        metrics: Metrics,
    ) -> None:
        """`segment` takes `POST`, `fixed` takes `GET`, each by exact path."""
        self._segment = segment
        self._fixed = fixed
        self._transcoder = transcoder
        self._readiness = readiness
        self._metrics = metrics
        # A uid for each request would cost more than finding its route.
        self._request_ids = new_uid("req")
        self._request_count = count(1)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one HTTP request (ASGI 3)."""
        began = time.perf_counter()
        headers = dict(scope["headers"])
        given_id = headers.get(b"x-request-id")
        request = Request(
            scope["method"],
            path=scope["path"],
            query=scope["query_string"],
            headers=headers,
            receive=receive,
            request_id=given_id.decode()
            if given_id and _REQUEST_ID.fullmatch(given_id)
            else f"{self._request_ids}-{next(self._request_count)}",
        )
        route, variables = self._find(request)
        try:
            response = await route.answer(request, variables)
        except SenderGoneError:
            return
        except Exception as error:
            response = _refuse(route, error, request)
        await self._send(response, request, send)
        seconds = time.perf_counter() - began
        self._metrics.observe(
            route.name, method=request.method, status=response.status, seconds=seconds
        )
        if route.logged or response.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            log.info(
                "answered",
                extra={
                    "method": request.method,
                    "route": route.name,
                    "status": response.status,
                    "milliseconds": round(seconds * 1000, 3),
                    "request_id": request.request_id,
                },
            )

    def _find(self, request: Request) -> tuple[Route, Mapping[str, str]]:
        path = request.path
        if request.method == "POST" and (route := self._segment.get(path)):
            return route, _NO_VARIABLES
        if request.method == "OPTIONS":
            return _PREFLIGHT_ROUTE, _NO_VARIABLES
        verb = "GET" if request.method == "HEAD" else request.method
        if verb == "GET" and (route := self._fixed.get(path)):
            return route, _NO_VARIABLES
        return self._transcoder.find(verb, path) or (_UNKNOWN_ROUTE, _NO_VARIABLES)

    async def _send(self, response: Response, request: Request, send: Send) -> None:
        origin = request.headers.get(b"origin", b"*")
        headers = [
            (b"content-type", response.content_type),
            (b"content-length", b"%d" % len(response.body)),
            (b"x-request-id", request.request_id.encode()),
            (b"access-control-allow-origin", origin if _ORIGIN.fullmatch(origin) else b"*"),
            *_EVERY_ANSWER,
            *response.headers,
        ]
        if response.status == http.HTTPStatus.NO_CONTENT:
            del headers[:2]
        if self._readiness.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})


def build_gateway(
    channels: Mapping[str, grpc.aio.Channel],
    *,
    readiness: Readiness,
    registry: CollectorRegistry,
    stale_seconds: float,
    now: Callable[[], datetime],
    monotonic: Callable[[], float],
) -> Gateway:
    """The application over channels to `ingest`, `query`, `keys` and `maintenance`.

    `stale_seconds` is how long keys go on working while Keys can't be asked;
    `monotonic` a clock in seconds that is never set.
    """
    keyring = Keyring(
        KeysStub(channels["keys"]), stale_seconds=stale_seconds, now=now, monotonic=monotonic
    )
    coalescer = Coalescer(IngestStub(channels["ingest"]), monotonic)
    metrics = Metrics(registry)
    metrics.watch_waiting_events(coalescer.count_waiting_events)
    description = Response(200, msgspec.json.encode(describe_api()))
    fixed = [
        PlainRoute("/healthz", lambda: Response(200, b'{"alive":true}')),
        PlainRoute("/readyz", readiness.response),
        PlainRoute("/metrics", metrics.response),
        PlainRoute("/openapi.json", lambda: description),
    ]
    return Gateway(
        segment=Segment(keyring, coalescer, now).routes(),
        fixed={route.name: route for route in fixed},
        transcoder=Transcoder(channels, keyring),
        readiness=readiness,
        metrics=metrics,
    )


def _refuse(route: Route, error: Exception, request: Request) -> Response:
    failure = to_failure(error)
    if failure.code == code_pb2.INTERNAL:
        log.error(
            "request failed",
            extra={
                "route": route.name,
                "request_id": request.request_id,
                **describe_failure(error),
            },
        )
    if route is _UNKNOWN_ROUTE and is_segment_path(request.path):
        return segment_error(failure)
    return route.refuse(failure)
