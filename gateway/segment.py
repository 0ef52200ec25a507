"""Serves the routes of Segment's tracking API, as its SDKs and those like it call them.

What they do with an answer was measured. Success is exactly 200 and a JSON object:
some send a batch again after any other 2xx, or after a body that is no JSON. Failures
have `code` and `message`: without these, some repeat for ever what can't succeed. A
bad event never fails the request: SDKs drop or repeat all events of a failed one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import parse_qs

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from common.context import Key
from common.errors import InternalError, KeyMissing, RateLimited, ScopeMissing
from common.keyring import Keyring
from gateway.body import read_body
from gateway.coalescer import Coalescer
from gateway.envelope import Sent, message_id_of, read_batch, read_event
from gateway.errors import headers_of, http_status, reason_of
from gateway.exchange import Headers, Request, Response, key_in_headers
from gateway.rate_limit import RateLimit
from gateway.senders import Senders, find_user_agent, wants_privacy
from shoptrail.ingest.v1 import event_pb2, ingest_pb2

Accept = Callable[[Request], Awaitable[Response]]

_SCOPE = "events:write"
EVENT_PATHS = {
    "/v1/identify": event_pb2.EVENT_TYPE_IDENTIFY,
    "/v1/track": event_pb2.EVENT_TYPE_TRACK,
    "/v1/page": event_pb2.EVENT_TYPE_PAGE,
    "/v1/screen": event_pb2.EVENT_TYPE_SCREEN,
    "/v1/group": event_pb2.EVENT_TYPE_GROUP,
    "/v1/alias": event_pb2.EVENT_TYPE_ALIAS,
    # analytics.js abbreviates.
    "/v1/i": event_pb2.EVENT_TYPE_IDENTIFY,
    "/v1/t": event_pb2.EVENT_TYPE_TRACK,
    "/v1/p": event_pb2.EVENT_TYPE_PAGE,
    "/v1/s": event_pb2.EVENT_TYPE_SCREEN,
    "/v1/g": event_pb2.EVENT_TYPE_GROUP,
    "/v1/a": event_pb2.EVENT_TYPE_ALIAS,
}
# The last is RudderStack's, for beacons of browsers.
BATCH_PATHS = ("/v1/batch", "/v1/import", "/v1/b", "/beacon/v1/batch")
# Metrics that analytics.js sends about itself, without a key.
DROPPED_PATH = "/v1/m"

_ONE_ACCEPTED = (
    b'{"success":true,"received":1,"accepted":1,"duplicates":0,"rejected":0,"suppressed":0,'
    b'"quota":0,"results":[]}'
)
# The verdicts that an answer counts, by the word it has for them.
_COUNTED = {
    event_pb2.VERDICT_ACCEPTED: "accepted",
    event_pb2.VERDICT_DUPLICATE: "duplicates",
    event_pb2.VERDICT_REJECTED: "rejected",
    event_pb2.VERDICT_SUPPRESSED: "suppressed",
    event_pb2.VERDICT_QUOTA: "quota",
}


@dataclass(frozen=True, slots=True)
class SegmentRoute:
    """A path that takes events in, whose callers are Segment's SDKs."""

    name: str
    accept: Accept
    logged: bool = False  # A line in the log costs more than the request.

    async def answer(self, request: Request, variables: Mapping[str, str]) -> Response:
        """200 with a verdict on each event that was not accepted."""
        return await self.accept(request)

    def refuse(self, failure: status_pb2.Status) -> Response:
        """A failure of the whole request. `error` is what the Ruby SDK reads."""
        return segment_error(failure)


class Segment:
    """Takes events in: finds out whose they are, and has Ingest store them."""

    def __init__(
        self,
        keyring: Keyring,
        coalescer: Coalescer,
        *,
        senders: Senders,
        rate_limit: RateLimit,
        now: Callable[[], datetime],
    ) -> None:
        self._keyring = keyring
        self._coalescer = coalescer
        self._senders = senders
        self._rate_limit = rate_limit
        self._now = now

    def routes(self) -> dict[str, SegmentRoute]:
        """Every path that takes `POST`, with and without a slash at its end."""
        routes = [SegmentRoute(DROPPED_PATH, _drop)]
        routes += [SegmentRoute(path, self._accepting(read_batch)) for path in BATCH_PATHS]
        routes += [
            SegmentRoute(path, self._accepting(read_event, default_type))
            for path, default_type in EVENT_PATHS.items()
        ]
        return {path: route for route in routes for path in (route.name, f"{route.name}/")}

    async def find_key(self, key_text: str, request: Request) -> Key:
        """The key with this text, which may write its store's events from there; else raises.

        Checked here and not by Ingest, whose calls carry the events of many keys.
        """
        key = await self._keyring.verify(key_text, request.headers)
        # A key that opens all stores can't say which one it means.
        if _SCOPE not in key.scopes or not key.store_uid:
            raise ScopeMissing(_SCOPE)
        return key

    async def find_successor(self, key_text: str) -> str:
        """The text of the key that was made in place of this one; empty if none was."""
        return await self._keyring.find_successor(key_text)

    def refuse_for_rate(self, key: Key) -> Response | None:
        """What to answer if the key sends more than it may; None if it doesn't."""
        try:
            self._rate_limit.check(key.uid)
        except RateLimited as error:
            refused = segment_error(error.to_proto())
            return replace(refused, headers=refused.headers + self._rate_limit.headers(key.uid))
        return None

    async def record(
        self,
        sent: Sent,
        key: Key,
        request: Request,
        *,
        received: datetime,
        default_type: event_pb2.EventType.ValueType,
    ) -> Response:
        """Have the events stored for the key's store; the answer says what became of them."""
        payloads = sent.payloads
        rate_headers = self._rate_limit.take(key.uid, len(payloads))
        if not payloads:
            return _describe(ingest_pb2.SubmissionResult(), [], rate_headers)
        submission = ingest_pb2.Submission(
            store_uid=key.store_uid,
            receive_time=_timestamp(received),
            default_type=default_type,
            payloads=payloads,
            client_ip=self._senders.find_ip(request),
            user_agent=find_user_agent(request),
            gpc=wants_privacy(request),
            confirmed=not key.is_publishable,
        )
        if sent.sent_time:
            submission.sent_time.FromDatetime(sent.sent_time)
        result = await self._coalescer.submit(
            submission, event_count=len(payloads), byte_count=sum(map(len, payloads))
        )
        return _describe(result, payloads, rate_headers)

    def _accepting(
        self,
        read: Callable[[bytes], Sent],
        default_type: event_pb2.EventType.ValueType = event_pb2.EVENT_TYPE_UNSPECIFIED,
    ) -> Accept:
        async def accept(request: Request) -> Response:
            body = await read_body(request.body)
            received = self._now()
            key_text = key_in_headers(request.headers)
            # A key that stands in the headers is checked before the body costs time.
            key = await self.find_key(key_text, request) if key_text else None
            if key is not None:
                if refused := self.refuse_for_rate(key):
                    return refused
                self._coalescer.require_room(key.store_uid)
            sent = read(body)
            if key is None:
                key = await self.find_key(_key_outside_headers(sent, request.query), request)
                if refused := self.refuse_for_rate(key):
                    return refused
            return await self.record(
                sent, key, request, received=received, default_type=default_type
            )

        return accept


def is_segment_path(path: str) -> bool:
    """Whether whoever calls this path expects Segment's answers.

    Also behind a prefix, as SDKs call that were given a host with a path.
    """
    return path.rstrip("/").endswith((*EVENT_PATHS, *BATCH_PATHS, DROPPED_PATH))


def key_in_query(query: bytes) -> str:
    """The key that the query has as `writeKey`. Raises `KeyMissing`."""
    in_query = parse_qs(query).get(b"writeKey")
    if in_query:
        return in_query[0].decode("latin-1")
    raise KeyMissing


def segment_error(failure: status_pb2.Status) -> Response:
    """A failure in the shape that Segment's SDKs understand."""
    body = {
        "success": False,
        "code": reason_of(failure).lower(),
        "message": failure.message,
        "error": failure.message,
    }
    return Response(http_status(failure), msgspec.json.encode(body), headers=headers_of(failure))


async def _drop(request: Request) -> Response:
    await read_body(request.body)
    return Response(200, b'{"success":true}')


def _key_outside_headers(sent: Sent, query: bytes) -> str:
    """The key in the body, or else in the query. Raises `KeyMissing`."""
    if sent.write_key:
        return sent.write_key
    return key_in_query(query)


def _timestamp(moment: datetime) -> Timestamp:
    # A third of what `FromDatetime` takes, on the hottest of all paths.
    return Timestamp(seconds=int(moment.timestamp()), nanos=moment.microsecond * 1000)


def _describe(
    result: ingest_pb2.SubmissionResult, payloads: list[bytes], headers: Headers
) -> Response:
    """How many events had which verdict, and more of those that were not accepted."""
    verdicts = list(result.verdicts)
    if verdicts == [event_pb2.VERDICT_ACCEPTED]:
        return Response(200, _ONE_ACCEPTED, headers=headers)
    faults = {fault.index: fault for fault in result.faults}
    results = []
    for index, verdict in enumerate(verdicts):
        if verdict == event_pb2.VERDICT_ACCEPTED:
            continue
        if verdict not in _COUNTED:
            raise InternalError
        entry: dict[str, object] = {"index": index}
        message_id = message_id_of(payloads[index])
        if message_id is not None:
            entry["messageId"] = message_id
        entry["verdict"] = _name_of(verdict)
        if fault := faults.get(index):
            entry |= {"code": fault.code, "path": fault.path, "message": fault.message}
        results.append(entry)
    body = {
        "success": True,
        "received": len(verdicts),
        **{name: verdicts.count(verdict) for verdict, name in _COUNTED.items()},
        "results": results,
    }
    return Response(200, msgspec.json.encode(body), headers=headers)


def _name_of(verdict: event_pb2.Verdict.ValueType) -> str:
    return event_pb2.Verdict.Name(verdict).removeprefix("VERDICT_").lower()
