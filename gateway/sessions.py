"""Sessions of the dashboard: a secret key is shown once, and a sealed cookie stands for it after.

The cookie holds no secret, only which key opened the session and until when. Keys is asked about
that key as about any other, so a session ends when its key does.
"""

from __future__ import annotations

import json
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from common.context import Key
from common.errors import InvalidRequest, KeyMissing, KeyNotValid, OriginNotAllowed
from common.keyring import Keyring
from common.origins import host_of
from gateway.exchange import Request, key_in_headers
from gateway.senders import Senders

HEADER = "x-shoptrail-session"
"""Requests of a session that change something carry it; other sites' pages can't send it."""

_NONCE_BYTES = 12
_BINDING = b"shoptrail session 1"
_PLAIN_NAME = "shoptrail_session"
# Browsers take it over HTTPS only, for no other host and path.
_SECURE_NAME = "__Host-shoptrail_session"
_SAFE_METHODS = ("GET", "HEAD")
_OWN_SITES = (b"same-origin", b"none")


@dataclass(frozen=True, slots=True)
class Session:
    """A session that is good now."""

    key: Key
    expire_time: datetime


class Sessions:
    """Finds out for which key a request comes, by its headers or its session."""

    def __init__(
        self,
        keyring: Keyring,
        senders: Senders,
        *,
        secret: bytes,
        hours: float,
        public_url: str,
        now: Callable[[], datetime],
    ) -> None:
        """Cookies are sealed with `secret`, 32 bytes, and last for `hours`.

        `public_url` is where browsers find the gateway; if empty, where a request says.
        """
        self._keyring = keyring
        self._senders = senders
        self._cipher = AESGCM(secret)
        self._lifetime = timedelta(hours=hours)
        self._public_url = public_url
        self._now = now

    async def find_key(self, request: Request) -> Key:
        """The key for which the request comes.

        Raises `KeyMissing` if it has neither a key nor a session; else as `Keyring.verify`
        and `find_session` do.
        """
        text = key_in_headers(request.headers)
        if text is not None:
            return await self._keyring.verify(text, request.headers)
        return (await self.find_session(request)).key

    async def find_session(self, request: Request) -> Session:
        """The session that the request's cookie stands for.

        Raises `KeyMissing` if there is none, `KeyNotValid` if it has ended, and
        `OriginNotAllowed` if it isn't sure that a page of ours sent the request.
        """
        cookie = self._read_cookie(request)
        if not cookie:
            raise KeyMissing
        self.check_origin(request)
        key_uid, epoch, expire_time = self._open(cookie)
        if expire_time <= self._now():
            raise KeyNotValid
        agent = request.headers.get(b"user-agent", b"")
        key, current_epoch = await self._keyring.verify_session(key_uid, agent)
        if epoch != current_epoch:
            raise KeyNotValid
        return Session(key, expire_time)

    async def open_session(self, request: Request, text: str) -> tuple[Session, bytes]:
        """A session for the key with this text, and the `Set-Cookie` that keeps it.

        Raises `OriginNotAllowed` if another site's page asks, `InvalidRequest` if the key is
        publishable, and as `Keyring.verify` does.
        """
        self.check_origin(request)
        # Without the request's headers: here, and only here, a page may show a secret key.
        found = await self._keyring.verify(text)
        if found.is_publishable:
            raise InvalidRequest({"key": "must be a secret key; this one stands in pages"})
        key, epoch = await self._keyring.verify_session(found.uid)
        expire_time = (self._now() + self._lifetime).replace(microsecond=0)
        sealed = self._seal(key.uid, epoch, expire_time)
        session = Session(key, expire_time)
        return session, self._cookie(request, sealed, int(self._lifetime.total_seconds()))

    def forget_cookie(self, request: Request) -> bytes:
        """The `Set-Cookie` that ends the session in this browser."""
        return self._cookie(request, "", 0)

    def check_origin(self, request: Request) -> None:
        """Raise `OriginNotAllowed` unless a page of ours, or no page at all, sent the request."""
        headers = request.headers
        origin = headers.get(b"origin")
        if (
            headers.get(b"sec-fetch-site", b"none") not in _OWN_SITES
            or (origin is not None and host_of(origin) != self._own_host(request, origin))
            or (request.method not in _SAFE_METHODS and HEADER.encode() not in headers)
        ):
            raise OriginNotAllowed

    def _own_host(self, request: Request, origin: bytes) -> str:
        if self._public_url:
            return host_of(self._public_url.encode())
        # With the scheme of the page: a proxy may have taken HTTPS off.
        scheme = origin.partition(b":")[0]
        return host_of(scheme + b"://" + request.headers.get(b"host", b"")) or "unknown"

    def _is_secure(self, request: Request) -> bool:
        return self._public_url.startswith("https:") or self._senders.is_secure(request)

    def _cookie(self, request: Request, value: str, seconds: int) -> bytes:
        secure = self._is_secure(request)
        name = _SECURE_NAME if secure else _PLAIN_NAME
        attributes = f"Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict"
        return f"{name}={value}; {attributes}{'; Secure' if secure else ''}".encode()

    def _read_cookie(self, request: Request) -> str:
        name = _SECURE_NAME if self._is_secure(request) else _PLAIN_NAME
        for line_name, line in request.header_lines:
            if line_name == b"cookie":
                for pair in line.decode("latin-1").split(";"):
                    key, _, value = pair.strip().partition("=")
                    if key == name:
                        return value
        return ""

    def _seal(self, key_uid: str, epoch: int, expire_time: datetime) -> str:
        nonce = os.urandom(_NONCE_BYTES)
        said = json.dumps([key_uid, epoch, int(expire_time.timestamp())]).encode()
        sealed = nonce + self._cipher.encrypt(nonce, said, _BINDING)
        return urlsafe_b64encode(sealed).decode().rstrip("=")

    def _open(self, cookie: str) -> tuple[str, int, datetime]:
        try:
            raw = urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
            said = self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _BINDING)
        except (ValueError, InvalidTag):
            raise KeyNotValid from None
        key_uid, epoch, expires = json.loads(said)
        return key_uid, epoch, datetime.fromtimestamp(expires, UTC)
