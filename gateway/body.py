"""Reads bodies: bounded, and inflated where they are gzip."""

from __future__ import annotations

import asyncio
import zlib

from common.errors import BodyTooLarge, DependencyUnavailable, InvalidRequest
from gateway.exchange import Receive, Request

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


async def read_body(request: Request) -> bytes:
    """The body, of at most 8 MiB, inflated if it begins like gzip, whatever the headers say.

    Some SDKs send gzip without saying so, and JSON never begins like gzip. Raises
    `BodyTooLarge`, also if it is gzip that inflates as only what is made to fill memory
    does; `InvalidRequest` if the gzip is broken; `DependencyUnavailable` if the body
    takes longer than the request allows; `SenderGoneError`.
    """
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise SenderGoneError
    body: bytes = message["body"]
    if message["more_body"]:
        try:
            async with asyncio.timeout(request.body_seconds):
                body = await _read_on(body, request.receive)
        except TimeoutError:
            # Of all answers the one after which a sender on a bad line tries again.
            raise DependencyUnavailable from None
    if len(body) > MAX_BODY_BYTES:
        raise BodyTooLarge(MAX_BODY_BYTES)
    return _inflate(body) if body.startswith(_GZIP_MAGIC) else body


async def _read_on(first: bytes, receive: Receive) -> bytes:
    chunks = [first]
    size = len(first)
    more = True
    while more and size <= _MAX_DROPPED_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise SenderGoneError
        more = message["more_body"]
        size += len(message["body"])
        if size <= MAX_BODY_BYTES:
            chunks.append(message["body"])
    if size > MAX_BODY_BYTES:
        raise BodyTooLarge(MAX_BODY_BYTES)
    return b"".join(chunks)


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
