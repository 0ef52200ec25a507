"""Tells what becomes of a store's events as it happens, as server-sent events."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

import grpc
import msgspec
from google.rpc import status_pb2

from common.errors import MeshError, Overloaded
from gateway.errors import error_response, reason_of, to_failure
from gateway.exchange import Request, Response
from gateway.readiness import Readiness
from gateway.senders import Senders
from gateway.sessions import Sessions
from gateway.transcoding import metadata_of, to_json
from shoptrail.ingest.v1 import ingest_pb2
from shoptrail.ingest.v1.ingest_pb2_grpc import IngestStub
from shoptrail.query.v1 import query_pb2
from shoptrail.query.v1.query_pb2_grpc import QueryStub

log = logging.getLogger(__name__)

LIVE_PATH = "/v1/stores/{store_uid}/events:live"
LIVE_PATTERN = re.compile("/v1/stores/(?P<store_uid>[^/:]+)/events:live")

_EVENT_STREAM = b"text/event-stream"
_MOST_STREAMS = 100
_WAIT_SECONDS = 1
_CALL_SECONDS = 5.0
_REJECTED_A_LOOK = 50
_MOST_REMEMBERED = 1000

_Metadata = tuple[tuple[str, str], ...]


class LiveRoute:
    """Serves the stream of a store's accepted and rejected events."""

    name = LIVE_PATH
    logged = True

    def __init__(
        self,
        channels: Mapping[str, grpc.aio.Channel],
        sessions: Sessions,
        senders: Senders,
        readiness: Readiness,
    ) -> None:
        self._query = QueryStub(channels["query"])
        self._ingest = IngestStub(channels["ingest"])
        self._sessions = sessions
        self._senders = senders
        self._readiness = readiness
        self._stream_count = 0

    async def answer(self, request: Request, variables: Mapping[str, str]) -> Response:
        """A stream that begins with what comes from now on, or after the last that was seen.

        Raises as an RPC would, and `Overloaded` if there are too many streams already.
        """
        if self._stream_count >= _MOST_STREAMS:
            raise Overloaded
        store_uid = variables["store_uid"]
        metadata = await self._identify(request)
        token = await self._tail(store_uid, _token_of(request), metadata)
        seen = _Seen()
        seen.select_new(await self._list_rejected(store_uid, metadata))
        return Response(
            200,
            b"",
            _EVENT_STREAM,
            headers=((b"x-accel-buffering", b"no"),),
            chunks=self._stream(request, store_uid, token, seen),
        )

    def refuse(self, failure: status_pb2.Status) -> Response:
        """A failure in the shape of AIP-193."""
        return error_response(failure)

    async def _stream(
        self,
        request: Request,
        store_uid: str,
        answer: query_pb2.TailEventsResponse,
        seen: _Seen,
    ) -> AsyncGenerator[bytes]:
        """Ends when the key does, when a service fails or when this process is about to stop."""
        self._stream_count += 1
        try:
            yield b"retry: 1000\n\n"
            while not self._readiness.draining:
                # Asked anew each time, so that a stream ends with its key.
                metadata = await self._identify(request)
                rejected = seen.select_new(await self._list_rejected(store_uid, metadata))
                yield _message(answer, rejected)
                answer = await self._tail(store_uid, answer.next_page_token, metadata)
        except (MeshError, grpc.aio.AioRpcError) as error:
            # The browser asks again, and then is told why not.
            reason = reason_of(to_failure(error))
            log.info("stream ended", extra={"reason": reason, "request_id": request.request_id})
        finally:
            self._stream_count -= 1

    async def _identify(self, request: Request) -> _Metadata:
        return metadata_of(await self._sessions.find_key(request), request, self._senders)

    async def _tail(
        self, store_uid: str, token: str, metadata: _Metadata
    ) -> query_pb2.TailEventsResponse:
        request = query_pb2.TailEventsRequest(
            store_uid=store_uid, page_token=token, page_size=_REJECTED_A_LOOK
        )
        # Always the same, since a token is good for a call with the same fields.
        request.wait.FromSeconds(_WAIT_SECONDS)
        return await self._query.TailEvents(request, timeout=_CALL_SECONDS, metadata=metadata)

    async def _list_rejected(self, store_uid: str, metadata: _Metadata) -> Sequence[Any]:
        request = ingest_pb2.ListRejectedEventsRequest(
            store_uid=store_uid, page_size=_REJECTED_A_LOOK
        )
        answer = await self._ingest.ListRejectedEvents(
            request, timeout=_CALL_SECONDS, metadata=metadata
        )
        return answer.rejected_events


class _Seen:
    """Remembers which of the latest rejected events were told."""

    def __init__(self) -> None:
        self._uids: OrderedDict[str, None] = OrderedDict()

    def select_new(self, latest: Sequence[Any]) -> list[Any]:
        """Those not told yet, the earliest first."""
        new = [event for event in reversed(latest) if event.uid not in self._uids]
        self._uids.update(dict.fromkeys(event.uid for event in new))
        while len(self._uids) > _MOST_REMEMBERED:
            self._uids.popitem(last=False)
        return new


def _token_of(request: Request) -> str:
    """Where a browser that lost the stream goes on."""
    last: bytes = request.headers.get(b"last-event-id", b"")
    if last:
        return last.decode("latin-1")
    return parse_qs(request.query.decode("latin-1")).get("page_token", [""])[0]


def _message(accepted: query_pb2.TailEventsResponse, rejected: Sequence[Any]) -> bytes:
    body = msgspec.json.encode(
        {
            "accepted": [to_json(event) for event in accepted.events],
            "rejected": [to_json(event) for event in rejected],
        }
    )
    # An event's JSON may have line breaks, as its sender wrote it.
    lines = b"\n".join(b"data: " + line for line in body.splitlines())
    return b"id: %s\n%s\n\n" % (accepted.next_page_token.encode(), lines)
