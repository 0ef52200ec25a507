"""The application: finds who serves a request, and answers whatever comes of it."""

from __future__ import annotations

import http
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count

import grpc
import msgspec
from google.rpc import code_pb2, status_pb2
from prometheus_client import CollectorRegistry

from common.errors import RouteUnknown
from common.keyring import Keyring
from common.log import describe_failure
from common.uid import new_uid
from gateway.body import SenderGoneError
from gateway.coalescer import Coalescer
from gateway.config import Settings
from gateway.dashboard import dashboard_routes
from gateway.demo_shop import demo_routes
from gateway.errors import error_response, reason_of, to_failure
from gateway.exchange import GPC_PATH, Headers, Request, Response, Route
from gateway.live import LIVE_PATTERN, LiveRoute
from gateway.metrics import Metrics
from gateway.openapi import describe_api
from gateway.pixel import pixel_routes
from gateway.rate_limit import RateLimit
from gateway.readiness import Readiness
from gateway.receipt_keys import RECEIPT_KEYS_PATH, ReceiptKeysRoute
from gateway.sdk_files import file_routes
from gateway.sdk_settings import SETTINGS_PATTERN, SOURCE_CONFIG_PATH, SdkSettings
from gateway.segment import Segment, is_segment_path, segment_error
from gateway.senders import Senders
from gateway.session_routes import SessionRoutes
from gateway.sessions import Sessions
from gateway.storefront_files import script_routes
from gateway.transcoding import Transcoder
from shoptrail.ingest.v1.ingest_pb2_grpc import IngestStub
from shoptrail.keys.v1.keys_pb2_grpc import KeysStub
from shoptrail.maintenance.v1.privacy_pb2_grpc import PrivacyStub

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_ORIGIN = re.compile(rb"[!-~]{1,512}")

_NO_VARIABLES: Mapping[str, str] = {}
_EVERY_ANSWER: Headers = (
    (
        b"access-control-expose-headers",
        b"Retry-After, RateLimit, RateLimit-Policy, X-Request-Id",
    ),
    (b"vary", b"Origin"),
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


# That Global Privacy Control is heeded: https://www.w3.org/TR/gpc/#gpc-support-representation
_GPC_SUPPORT = Response(
    200, b'{"gpc":true,"lastUpdate":"2026-11-22"}', caching=b"public, max-age=86400"
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
        posted: Mapping[str, Route],
        fixed: Mapping[str, Route],
        matched: Sequence[tuple[re.Pattern[str], Route]],
        transcoder: Transcoder,
        keyring: Keyring,
        readiness: Readiness,
        metrics: Metrics,
    ) -> None:
        """`posted` takes `POST`, `fixed` and `matched` `GET`, by exact path and by pattern."""
        self._posted = posted
        self._fixed = fixed
        self._matched = matched
        self._transcoder = transcoder
        self._keyring = keyring
        self._readiness = readiness
        self._metrics = metrics
        # A uid for each request would cost more than finding its route.
        self._request_ids = new_uid("req")
        self._request_count = count(1)

    async def stay_current(self, *, report_seconds: float = 10.0) -> None:
        """Follow what becomes of keys, and report which are used, until cancelled.

        Without it keys are still asked for again when what is remembered of them is old.
        """
        await self._keyring.stay_current(report_seconds=report_seconds)

    async def __call__(self, request: Request) -> Response:
        """The answer to a request; raises `SenderGoneError`."""
        began = time.perf_counter()
        given_id = request.headers.get(b"x-request-id")
        request.request_id = (
            given_id.decode()
            if given_id and _REQUEST_ID.fullmatch(given_id)
            else f"{self._request_ids}-{next(self._request_count)}"
        )
        route, variables = self._find(request)
        request.route = route.name
        try:
            response = await route.answer(request, variables)
        except SenderGoneError:
            raise
        except Exception as error:
            failure = _failure_of(error, route, request)
            self._metrics.count_failure(route.name, reason_of(failure))
            response = _refuse(route, failure, request)
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
        return self._complete(response, request)

    def _find(self, request: Request) -> tuple[Route, Mapping[str, str]]:
        path = request.path
        if request.method == "POST" and (route := self._posted.get(path)):
            return route, _NO_VARIABLES
        if request.method == "OPTIONS":
            return _PREFLIGHT_ROUTE, _NO_VARIABLES
        verb = "GET" if request.method == "HEAD" else request.method
        if verb == "GET" and (route := self._fixed.get(path)):
            return route, _NO_VARIABLES
        if verb == "GET":
            for pattern, route in self._matched:
                if found := pattern.fullmatch(path):
                    return route, found.groupdict()
        return self._transcoder.find(verb, path) or (_UNKNOWN_ROUTE, _NO_VARIABLES)

    def _complete(self, response: Response, request: Request) -> Response:
        """The response with the headers that all answers have."""
        origin = request.headers.get(b"origin", b"*")
        headers: Headers = (
            (b"x-request-id", request.request_id.encode()),
            (b"access-control-allow-origin", origin if _ORIGIN.fullmatch(origin) else b"*"),
            *_EVERY_ANSWER,
            *response.headers,
        )
        return Response(
            response.status,
            response.body,
            content_type=response.content_type,
            headers=headers,
            caching=response.caching,
            chunks=response.chunks,
            is_last=self._readiness.draining,
        )


def build_gateway(
    channels: Mapping[str, grpc.aio.Channel],
    *,
    settings: Settings,
    readiness: Readiness,
    registry: CollectorRegistry,
    now: Callable[[], datetime],
    monotonic: Callable[[], float],
) -> Gateway:
    """The application over channels to `ingest`, `query`, `keys` and `maintenance`.

    `monotonic` is a clock in seconds that is never set.
    """
    keyring = Keyring(
        KeysStub(channels["keys"]),
        stale_seconds=settings.keys_stale_seconds,
        now=now,
        monotonic=monotonic,
    )
    coalescer = Coalescer(IngestStub(channels["ingest"]), monotonic)
    metrics = Metrics(registry)
    metrics.watch_waiting_events(coalescer.count_waiting_events)
    senders = Senders(settings.trusted_proxies)
    segment = Segment(
        keyring,
        coalescer,
        senders=senders,
        rate_limit=RateLimit(
            events_per_second=settings.key_events_per_second,
            burst=settings.key_event_burst,
            monotonic=monotonic,
        ),
        now=now,
    )
    sessions = Sessions(
        keyring,
        senders,
        secret=settings.session_key.get_secret_value(),
        hours=settings.session_hours,
        public_url=settings.public_url,
        now=now,
    )
    session_routes = SessionRoutes(sessions, channels["keys"], senders)
    pages, assets = dashboard_routes(settings.dashboard_directory)
    sdk_settings = SdkSettings(segment, senders, settings.public_url)
    source_config = sdk_settings.source_config_route()
    transcoder = Transcoder(channels, sessions, senders)
    description = Response(200, msgspec.json.encode(describe_api()))
    plain = [
        PlainRoute("/healthz", lambda: Response(200, b'{"alive":true}')),
        PlainRoute("/readyz", readiness.response),
        PlainRoute("/metrics", metrics.response),
        PlainRoute("/openapi.json", lambda: description),
        PlainRoute(GPC_PATH, lambda: _GPC_SUPPORT),
    ]
    return Gateway(
        posted={**segment.routes(), **session_routes.posted()},
        fixed={
            **pages,
            **session_routes.got(),
            **{route.name: route for route in plain},
            RECEIPT_KEYS_PATH: ReceiptKeysRoute(PrivacyStub(channels["maintenance"])),
            **pixel_routes(segment, now),
            **script_routes(),
            **{f"{SOURCE_CONFIG_PATH}{slash}": source_config for slash in ("", "/")},
        },
        matched=[
            (SETTINGS_PATTERN, sdk_settings.route()),
            *file_routes(settings.analytics_js_directory),
            *assets,
            (LIVE_PATTERN, LiveRoute(channels, sessions, senders, readiness)),
            *demo_routes(settings.demo_shop, transcoder),
        ],
        transcoder=transcoder,
        keyring=keyring,
        readiness=readiness,
        metrics=metrics,
    )


def _failure_of(error: Exception, route: Route, request: Request) -> status_pb2.Status:
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
    return failure


def _refuse(route: Route, failure: status_pb2.Status, request: Request) -> Response:
    if route is _UNKNOWN_ROUTE and is_segment_path(request.path):
        return segment_error(failure)
    return route.refuse(failure)
