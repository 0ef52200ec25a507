"""Signs people in and out of the dashboard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import grpc
import msgspec
from google.rpc import status_pb2

from common.errors import InvalidRequest, KeyMissing, KeyNotValid
from gateway.body import read_body
from gateway.errors import error_response
from gateway.exchange import Request, Response, Route
from gateway.senders import Senders
from gateway.sessions import Session, Sessions
from gateway.transcoding import metadata_of
from shoptrail.keys.v1 import keys_pb2
from shoptrail.keys.v1.keys_pb2_grpc import KeysStub

SESSION_PATH = "/v1/session"
END_PATH = "/v1/session:end"
END_ALL_PATH = "/v1/session:end-all"

_SECONDS = 3.0
_MAX_KEY_LENGTH = 256


@dataclass(frozen=True, slots=True)
class SessionRoute:
    """A path that is about the session of whoever asks."""

    name: str
    serve: Callable[[Request], Awaitable[Response]]
    logged: bool = True

    async def answer(self, request: Request, variables: Mapping[str, str]) -> Response:
        """What has become of the session."""
        return await self.serve(request)

    def refuse(self, failure: status_pb2.Status) -> Response:
        """A failure in the shape of AIP-193."""
        return error_response(failure)


class SessionRoutes:
    """Opens sessions, tells of them and ends them."""

    def __init__(self, sessions: Sessions, keys: grpc.aio.Channel, senders: Senders) -> None:
        self._sessions = sessions
        self._keys = KeysStub(keys)
        self._senders = senders

    def got(self) -> Mapping[str, Route]:
        """By path, what takes `GET`."""
        return {SESSION_PATH: SessionRoute(SESSION_PATH, self._tell, logged=False)}

    def posted(self) -> Mapping[str, Route]:
        """By path, what takes `POST`."""
        return {
            path: SessionRoute(path, serve)
            for path, serve in (
                (SESSION_PATH, self._open),
                (END_PATH, self._end),
                (END_ALL_PATH, self._end_all),
            )
        }

    async def _tell(self, request: Request) -> Response:
        try:
            return _describe(await self._sessions.find_session(request))
        except (KeyMissing, KeyNotValid):
            # Not a failure: browsers would tell people of one.
            return Response(204, b"")

    async def _open(self, request: Request) -> Response:
        # Before the body is read: what another site's page sends is not looked at.
        self._sessions.check_origin(request)
        session, cookie = await self._sessions.open_session(
            request, _read_key_text(await read_body(request.body))
        )
        return _describe(session, cookie)

    async def _end(self, request: Request) -> Response:
        self._sessions.check_origin(request)
        return self._ended(request)

    async def _end_all(self, request: Request) -> Response:
        session = await self._sessions.find_session(request)
        await self._keys.EndSessions(
            keys_pb2.EndSessionsRequest(key_uid=session.key.uid),
            timeout=_SECONDS,
            metadata=metadata_of(session.key, request, self._senders),
        )
        return self._ended(request)

    def _ended(self, request: Request) -> Response:
        cookie = self._sessions.forget_cookie(request)
        return Response(200, b"{}", headers=((b"set-cookie", cookie),))


def _read_key_text(body: bytes) -> str:
    try:
        given = msgspec.json.decode(body, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        given = {}
    text = given.get("key", "").strip()
    if not text or len(text) > _MAX_KEY_LENGTH:
        raise InvalidRequest({"key": "must be the text of a secret key"})
    return text


def _describe(session: Session, cookie: bytes | None = None) -> Response:
    body = {
        "key_uid": session.key.uid,
        "store_uid": session.key.store_uid,
        "scopes": sorted(session.key.scopes),
        "expire_time": session.expire_time.isoformat().replace("+00:00", "Z"),
    }
    headers = ((b"set-cookie", cookie),) if cookie else ()
    return Response(200, msgspec.json.encode(body), headers=headers)
