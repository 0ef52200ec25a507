"""Reads bodies: bounded, and inflated where they are gzip."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable

from common.errors import BodyTooLarge, DependencyUnavailable, InvalidRequest

MAX_BODY_BYTES = 8 * 1024 * 1024

# What is too large is still taken in, up to this, and dropped: senders that write
# to the end before they read would see a broken connection instead of the answer.
_MAX_DROPPED_BYTES = 64 * 1024 * 1024
# What events compress to was never below a hundredth; what inflates to a thousandfold,
# the most that gzip can, was made for that.
_MAX_RATIO = 200
_UNSUSPICIOUS_BYTES = 1024 * 1024
_MAX_MEMBERS = 100
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class SenderGoneError(Exception):
    """The connection was closed before the request was complete: nobody reads an answer."""


class Body:
    """What has come of a request's body, and is not read yet; its connection adds the rest."""

    __slots__ = ("_gone", "_parts", "_waiter", "_want", "complete", "seconds", "unread_bytes")

    def __init__(self, want: Callable[[], None] = lambda: None, *, seconds: float = 30.0) -> None:
        """It may take so many seconds. `want` is called when a reader waits for more."""
        self._want = want
        self.seconds = seconds
        self._parts: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._gone = False
        self.complete = False
        """Whether nothing more will come."""
        self.unread_bytes = 0
        """How much of it waits for a reader."""

    async def read_part(self) -> bytes:
        """What came since the last time, as soon as there is something; empty at the end.

        Raises `SenderGoneError` if the end won't come.
        """
        while not (self._parts or self.complete or self._gone):
            self._waiter = asyncio.get_running_loop().create_future()
            self._want()
            await self._waiter
        if self._gone:
            raise SenderGoneError
        part = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self.unread_bytes = 0
        return part

    def add(self, part: bytes) -> None:
        """Have a part read that came."""
        self._parts.append(part)
        self.unread_bytes += len(part)
        self._wake()

    def finish(self) -> None:
        """Note that this was all."""
        self.complete = True
        self._wake()

    def abandon(self) -> None:
        """Note that the sender is gone."""
        self._gone = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def read_body(body: Body) -> bytes:
    """The body, of at most 8 MiB, inflated if it begins like gzip, whatever the headers say.

    Some SDKs send gzip without saying so, and JSON never begins like gzip. Raises
    `BodyTooLarge`, also if it is gzip that inflates as only what is made to fill memory
    does; `InvalidRequest` if the gzip is broken; `DependencyUnavailable` if the body
    takes longer than it may; `SenderGoneError`.
    """
    whole = await body.read_part()
    if not body.complete:
        try:
            async with asyncio.timeout(body.seconds):
                whole = await _read_on(whole, body)
        except TimeoutError:
            # Of all answers the one after which a sender on a bad line tries again.
            raise DependencyUnavailable from None
    if len(whole) > MAX_BODY_BYTES:
        raise BodyTooLarge(MAX_BODY_BYTES)
    return _inflate(whole) if whole.startswith(_GZIP_MAGIC) else whole


async def _read_on(first: bytes, body: Body) -> bytes:
    parts = [first]
    size = len(first)
    while size <= _MAX_DROPPED_BYTES and (part := await body.read_part()):
        size += len(part)
        if size <= MAX_BODY_BYTES:
            parts.append(part)
    if size > MAX_BODY_BYTES:
        raise BodyTooLarge(MAX_BODY_BYTES)
    return b"".join(parts)


def _inflate(compressed: bytes) -> bytes:
    largest = max(len(compressed) * _MAX_RATIO, _UNSUSPICIOUS_BYTES)
    limit = min(largest, MAX_BODY_BYTES)
    members = []
    size = 0
    rest = compressed
    try:
        while rest:  # A gzip file may have several members (RFC 1952, 2.2).
            member = zlib.decompressobj(_GZIP_WINDOW)
            members.append(member.decompress(rest, limit + 1 - size))
            size += len(members[-1])
            if size > limit or len(members) > _MAX_MEMBERS:
                raise BodyTooLarge(limit)
            if not member.eof:
                raise InvalidRequest({"body": "is gzip that ends too early"})
            rest = member.unused_data
    except zlib.error:
        raise InvalidRequest({"body": "begins like gzip, and is none"}) from None
    return b"".join(members)
