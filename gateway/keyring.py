"""Remembers what Keys said of a key, so that most requests need not ask."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import grpc

from common.context import Key
from common.errors import DependencyUnavailable, KeyNotValid, Overloaded
from shoptrail.keys.v1 import keys_pb2

if TYPE_CHECKING:  # The generated stubs have it for the type checker only.
    from shoptrail.keys.v1.keys_pb2_grpc import KeysAsyncStub

_ASK_SECONDS = 0.5
_REMEMBER_INVALID_SECONDS = 10.0
# How long to leave Keys alone about a key, after it couldn't be asked.
_RETRY_SECONDS = 1.0
_MAX_REMEMBERED = 10_000
_MAX_ASKING = 256
_MAX_TEXT_LENGTH = 256


@dataclass(frozen=True, slots=True)
class _Known:
    key: Key | None
    """None if the key doesn't work."""
    expire_time: datetime | None
    """None if it never does."""
    fresh_until: float
    """By the monotonic clock, as what follows."""
    usable_until: float
    """How long it may be used if Keys can't be asked."""


class Keyring:
    """Knows keys for as long as Keys allows, and no key past its expire time.

    Of keys, only hashes are held. Keys that don't work are remembered for 10 s.
    While Keys can't be asked, keys that worked go on working for `stale_seconds`
    after they were last confirmed.
    """

    def __init__(
        self,
        keys: KeysAsyncStub,
        *,
        stale_seconds: float,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._keys = keys
        self._stale_seconds = stale_seconds
        self._now = now
        self._monotonic = monotonic
        # Apart, so that no flood of made-up keys drives out those that work.
        self._valid: OrderedDict[bytes, _Known] = OrderedDict()
        self._invalid: OrderedDict[bytes, _Known] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[_Known]] = {}

    async def verify(self, text: str) -> Key:
        """The key with this text.

        Raises `KeyNotValid`; `DependencyUnavailable` if only Keys could tell and
        can't be asked; `Overloaded` if too many unknown keys are being asked for.
        """
        if len(text) > _MAX_TEXT_LENGTH or not text.isascii():
            raise KeyNotValid
        digest = hashlib.sha256(text.encode()).digest()
        known = self._recall(digest)
        if known is None:
            known = await self._ask_once(digest, text)
        if known.key is None or (known.expire_time and known.expire_time <= self._now()):
            raise KeyNotValid
        return known.key

    def _recall(self, digest: bytes) -> _Known | None:
        for remembered in (self._valid, self._invalid):
            known = remembered.get(digest)
            if known is not None and known.fresh_until > self._monotonic():
                remembered.move_to_end(digest)
                return known
        return None

    async def _ask_once(self, digest: bytes, text: str) -> _Known:
        asking = self._asking.get(digest)
        if asking is None:
            if len(self._asking) >= _MAX_ASKING:
                raise Overloaded
            asking = asyncio.create_task(self._ask(digest, text))
            self._asking[digest] = asking
            asking.add_done_callback(lambda _: self._asking.pop(digest))
        # One request that is given up must not take the others' answer along.
        return await asyncio.shield(asking)

    async def _ask(self, digest: bytes, text: str) -> _Known:
        asked_at = self._monotonic()
        try:
            answer = await self._keys.VerifyKey(
                keys_pb2.VerifyKeyRequest(text=text), timeout=_ASK_SECONDS
            )
        except grpc.aio.AioRpcError:
            return self._make_do(digest)
        known = self._read(answer, asked_at)
        self._forget(digest)
        _remember(self._invalid if known.key is None else self._valid, digest, known)
        return known

    def _make_do(self, digest: bytes) -> _Known:
        known = self._valid.get(digest)
        now = self._monotonic()
        if known is None or known.usable_until <= now:
            raise DependencyUnavailable
        known = replace(known, fresh_until=min(now + _RETRY_SECONDS, known.usable_until))
        _remember(self._valid, digest, known)
        return known

    def _read(self, answer: keys_pb2.VerifyKeyResponse, asked_at: float) -> _Known:
        if not answer.HasField("key"):
            until = asked_at + _REMEMBER_INVALID_SECONDS
            return _Known(None, expire_time=None, fresh_until=until, usable_until=until)
        key = answer.key
        expires = key.HasField("expire_time")
        fresh_until = asked_at + answer.remember.ToTimedelta().total_seconds()
        return _Known(
            Key(uid=key.uid, store_uid=key.store_uid, scopes=frozenset(key.scopes)),
            expire_time=key.expire_time.ToDatetime(UTC) if expires else None,
            fresh_until=fresh_until,
            usable_until=max(fresh_until, asked_at + self._stale_seconds),
        )

    def _forget(self, digest: bytes) -> None:
        self._valid.pop(digest, None)
        self._invalid.pop(digest, None)


def _remember(remembered: OrderedDict[bytes, _Known], digest: bytes, known: _Known) -> None:
    remembered[digest] = known
    remembered.move_to_end(digest)
    if len(remembered) > _MAX_REMEMBERED:
        remembered.popitem(last=False)
