"""Remembers what Keys said of a key, so that most requests need not ask."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import grpc

from common.client import open_channel
from common.config import KeyringConfig
from common.context import Key
from common.errors import (
    DependencyUnavailable,
    KeyNotValid,
    OriginNotAllowed,
    Overloaded,
    SecretKeyExposed,
)
from common.log import describe_failure
from common.origins import host_of, is_allowed
from common.tls import Certificates
from shoptrail.keys.v1 import api_key_pb2, keys_pb2, keys_pb2_grpc

if TYPE_CHECKING:  # The generated stubs have it for the type checker only.
    from shoptrail.keys.v1.keys_pb2_grpc import KeysAsyncStub

log = logging.getLogger(__name__)

_KEYS = keys_pb2.DESCRIPTOR.services_by_name["Keys"].full_name

_ASK_SECONDS = 0.5
# For a key that isn't known there is nothing to make do with, and a proxy on the way gives up
# on a Keys that is silent, and tries another, only after 1.5 s.
_ASK_OF_UNKNOWN_SECONDS = 2.5
_REMEMBER_INVALID_SECONDS = 10.0
# How long to leave Keys alone about a key, after it couldn't be asked.
_RETRY_SECONDS = 1.0
_MAX_ASKING = 256
_MAX_TEXT_LENGTH = 256
# Answers may be older than a revision that became known meanwhile.
_MOST_ASKED = 3

_WATCH_SECONDS = 20
_WATCH_AGAIN_SECONDS = 0.1
_USES_A_CALL = 1000

_NO_HEADERS: Mapping[bytes, bytes] = {}
_PRODUCT = re.compile(rb"[A-Za-z][A-Za-z0-9_.-]{0,40}/[A-Za-z0-9_.+-]{1,22}")


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Use:
    """How a key was used, since the last report and before; times by the monotonic clock."""

    at: float = 0.0
    origin: bytes = b""
    agent: bytes = b""
    exposed_at: float = 0.0
    exposed_origin: bytes = b""
    reported_until: float = 0.0


@dataclass(slots=True, eq=False)
class _Known:
    key: Key | None
    """None if the key doesn't work."""
    expire_time: datetime | None
    """None if it never does."""
    fresh_until: float
    """By the monotonic clock, as what follows."""
    usable_until: float
    """How long it may be used if Keys can't be asked."""
    position: int = 0
    """Up to which revision this holds."""
    allowed_origins: Sequence[str] = ()
    successor_text: str = ""
    session_epoch: int = 0
    use: _Use = field(default_factory=_Use)
    admitted: bytes | None = None
    """The origin that was last found to be allowed."""
    unconfirmed: bool = False
    """Whether Keys could not be asked when it last was to be."""


class Keyring:
    """Knows keys for as long as Keys allows, and no key past its expire time.

    Of keys, only hashes are held. Keys that don't work are remembered for 10 s.
    While Keys can't be asked, keys that worked go on working for `stale_seconds`
    after they were last confirmed, and only the first request waits to hear that. While
    `stay_current` runs, a key that was changed is asked for again within a second.
    """

    def __init__(
        self,
        keys: KeysAsyncStub,
        *,
        stale_seconds: float,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        max_remembered: int = 10_000,
    ) -> None:
        """At most `max_remembered` keys are held that work, and as many that don't.

        Those go first that were asked for first, which a key in use is every few seconds.
        """
        self.keys = keys
        """Keys itself, for what is not about one key."""
        self._stale_seconds = stale_seconds
        self._now = now
        self._monotonic = monotonic
        self._max_remembered = max_remembered
        # Apart, so that no flood of made-up keys drives out those that work.
        self._valid: OrderedDict[bytes, _Known] = OrderedDict()
        self._invalid: OrderedDict[bytes, _Known] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[_Known]] = {}
        # By the uids of keys: one may be held by its text and by its sessions.
        self._uses: WeakValueDictionary[str, _Use] = WeakValueDictionary()
        self._position: int | None = None

    async def verify(self, text: str, headers: Mapping[bytes, bytes] = _NO_HEADERS) -> Key:
        """The key with this text, which came with these headers, by lower-case name.

        Raises `KeyNotValid`; `OriginNotAllowed` if the key is bound to other hosts than the
        request's `Origin`, or without one its `Referer`, names; `SecretKeyExposed` if it
        must stay secret and came with an `Origin`; `DependencyUnavailable` if only Keys
        could tell and can't be asked; `Overloaded` if too many unknown keys are being asked
        for.
        """
        monotonic = self._monotonic()
        # As `_digest_of` has it, less a call and the checks that a text which is known has passed.
        known = self._valid.get(blake2b(text.encode()).digest())
        if known is None or known.fresh_until <= monotonic:
            known = await self._find(_digest_of(text), keys_pb2.VerifyKeyRequest(text=text))
        key = known.key
        if key is None or (known.expire_time and known.expire_time <= self._now()):
            raise KeyNotValid
        use = known.use
        origin = headers.get(b"origin")
        if origin is not None and origin == known.admitted:
            use.origin = origin
        elif origin is not None or known.allowed_origins:
            self._check_origin(known, key, origin, headers)
        use.at = monotonic
        use.agent = headers.get(b"user-agent", b"")
        return key

    async def verify_session(self, key_uid: str, agent: bytes = b"") -> tuple[Key, int]:
        """The key of this uid, which opened a session, and how often its sessions were ended.

        Raises as `verify` does, but for what concerns origins: who presents a session must
        have found out that it comes from pages of ours.
        """
        request = keys_pb2.VerifyKeyRequest(key_uid=key_uid)
        known = await self._find(_digest_of_session(key_uid), request)
        key = known.key
        if key is None or (known.expire_time and known.expire_time <= self._now()):
            raise KeyNotValid
        known.use.at = self._monotonic()
        known.use.agent = agent
        return key, known.session_epoch

    async def find_successor(self, text: str) -> str:
        """The text of the key that was made in place of a publishable one; empty if none was.

        Raises as `verify` does.
        """
        known = await self._find(_digest_of(text), keys_pb2.VerifyKeyRequest(text=text))
        if known.key is None:
            raise KeyNotValid
        return known.successor_text

    def count_remembered(self) -> int:
        """How many keys are held, those that don't work among them."""
        return len(self._valid) + len(self._invalid)

    async def stay_current(self, *, report_seconds: float) -> None:
        """Follow what becomes of keys, and tell Keys every so often which were used."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_go_on(self._follow_revisions, pause_seconds=_WATCH_AGAIN_SECONDS))
            tasks.create_task(_go_on(self.report_uses, pause_seconds=report_seconds))

    async def report_uses(self) -> None:
        """Tell Keys which keys were used since the last time."""
        by_use = {
            known.use: known
            for known in self._valid.values()
            if known.key and max(known.use.at, known.use.exposed_at) > known.use.reported_until
        }
        used = list(by_use.values())
        for start in range(0, len(used), _USES_A_CALL):
            some = used[start : start + _USES_A_CALL]
            until = self._monotonic()
            request = keys_pb2.ReportKeyUseRequest(uses=[self._describe(known) for known in some])
            await self.keys.ReportKeyUse(request, timeout=_ASK_SECONDS * 4)
            for known in some:
                known.use.reported_until = until

    async def _find(self, digest: bytes, request: keys_pb2.VerifyKeyRequest) -> _Known:
        now = self._monotonic()
        for remembered in (self._valid, self._invalid):
            known = remembered.get(digest)
            if known is not None and known.fresh_until > now:
                return known
        known = self._valid.get(digest)
        if known is not None and known.unconfirmed and known.usable_until > now:
            # Whether Keys still is away is found out beside the request.
            if len(self._asking) < _MAX_ASKING:
                self._ask_once(digest, request)
            return known
        # One request that is given up must not take the others' answer along.
        return await asyncio.shield(self._ask_once(digest, request))

    def _check_origin(
        self, known: _Known, key: Key, origin: bytes | None, headers: Mapping[bytes, bytes]
    ) -> None:
        if not key.is_publishable:
            if origin is not None:
                known.use.exposed_at = self._monotonic()
                known.use.exposed_origin = origin
                raise SecretKeyExposed
            return
        source = headers.get(b"referer", b"") if origin is None else origin
        if (
            known.allowed_origins
            and source != known.admitted
            and not is_allowed(host_of(source), known.allowed_origins)
        ):
            raise OriginNotAllowed
        known.admitted = known.use.origin = source

    def _ask_once(self, digest: bytes, request: keys_pb2.VerifyKeyRequest) -> asyncio.Task[_Known]:
        """The one question about a key that is under way, begun if there is none."""
        asking = self._asking.get(digest)
        if asking is None:
            if len(self._asking) >= _MAX_ASKING:
                raise Overloaded
            asking = asyncio.create_task(self._ask(digest, request))
            self._asking[digest] = asking
            asking.add_done_callback(lambda ended: self._end_asking(digest, ended))
        return asking

    def _end_asking(self, digest: bytes, ended: asyncio.Task[_Known]) -> None:
        del self._asking[digest]
        if not ended.cancelled():
            ended.exception()  # Nobody may be waiting for it.

    async def _ask(self, digest: bytes, request: keys_pb2.VerifyKeyRequest) -> _Known:
        former = self._valid.get(digest)
        can_make_do = former is not None and former.usable_until > self._monotonic()
        timeout = _ASK_SECONDS if can_make_do else _ASK_OF_UNKNOWN_SECONDS
        for _ in range(_MOST_ASKED):
            asked_at = self._monotonic()
            try:
                answer = await self.keys.VerifyKey(request, timeout=timeout)
            except grpc.aio.AioRpcError:
                return self._make_do(digest)
            if answer.position >= (self._position or 0):
                break
        else:
            raise DependencyUnavailable
        known = self._read(answer, asked_at)
        former = self._valid.pop(digest, None)
        self._invalid.pop(digest, None)
        if former is not None:
            known.use = former.use
        if known.key is not None:
            known.use = self._uses.setdefault(known.key.uid, known.use)
        remembered = self._invalid if known.key is None else self._valid
        remembered[digest] = known
        if len(remembered) > self._max_remembered:
            remembered.popitem(last=False)
        return known

    def _make_do(self, digest: bytes) -> _Known:
        known = self._valid.get(digest)
        now = self._monotonic()
        if known is None or known.usable_until <= now:
            raise DependencyUnavailable
        known.fresh_until = min(now + _RETRY_SECONDS, known.usable_until)
        known.unconfirmed = True
        self._valid.move_to_end(digest)
        return known

    def _read(self, answer: keys_pb2.VerifyKeyResponse, asked_at: float) -> _Known:
        if not answer.HasField("key"):
            until = asked_at + _REMEMBER_INVALID_SECONDS
            return _Known(None, expire_time=None, fresh_until=until, usable_until=until)
        key = answer.key
        expires = key.HasField("expire_time")
        fresh_until = asked_at + answer.remember.ToTimedelta().total_seconds()
        return _Known(
            Key(
                uid=key.uid,
                store_uid=key.store_uid,
                scopes=frozenset(key.scopes),
                is_publishable=key.kind == api_key_pb2.KEY_KIND_PUBLISHABLE,
            ),
            expire_time=key.expire_time.ToDatetime(UTC) if expires else None,
            fresh_until=fresh_until,
            usable_until=max(fresh_until, asked_at + self._stale_seconds),
            position=answer.position,
            allowed_origins=tuple(key.allowed_origins),
            successor_text=answer.successor_text,
            session_epoch=answer.session_epoch,
        )

    async def _follow_revisions(self) -> None:
        """Wait for the next revisions, and forget what they are about."""
        request = keys_pb2.WatchRevisionsRequest(after_position=self._position)
        request.wait.FromSeconds(_WATCH_SECONDS)
        answer = await self.keys.WatchRevisions(request, timeout=_WATCH_SECONDS + 5)
        before, self._position = self._position, answer.position
        if before is None:
            self._forget(lambda known: known.position < answer.position)
        elif answer.position < before:
            self._forget(lambda known: True)  # By now others may be at these positions.
        elif answer.revisions:
            stores = {each.store_uid for each in answer.revisions if not each.key_uid}
            keys = {each.key_uid for each in answer.revisions}
            self._forget(
                lambda known: (
                    known.position < answer.position
                    and known.key is not None
                    and (known.key.uid in keys or known.key.store_uid in stores)
                )
            )

    def _forget(self, is_changed: Callable[[_Known], bool]) -> None:
        for known in self._valid.values():
            if is_changed(known):
                known.fresh_until = known.usable_until = 0.0
        # Keys that are new, or work again.
        self._invalid.clear()

    def _describe(self, known: _Known) -> keys_pb2.KeyUse:
        use = known.use
        product = _PRODUCT.match(use.agent)
        described = keys_pb2.KeyUse(
            key_uid=known.key.uid if known.key else "",
            origin=_name_of(use.exposed_origin or use.origin),
            sdk=product[0].decode() if product else "",
        )
        now, monotonic = self._now(), self._monotonic()
        if use.at > use.reported_until:
            described.use_time.FromDatetime(now - timedelta(seconds=monotonic - use.at))
        if use.exposed_at > use.reported_until:
            described.expose_time.FromDatetime(now - timedelta(seconds=monotonic - use.exposed_at))
        return described


@asynccontextmanager
async def keeping_keys(
    config: KeyringConfig,
    certificates: Certificates,
    *,
    proxy: str = "",
    report_seconds: float = 10.0,
) -> AsyncIterator[Keyring]:
    """A keyring that follows Keys for the block, also while Keys is away.

    `proxy` is as of `open_channel`.
    """
    channel = open_channel(config.keys_address, _KEYS, "keys", certificates, proxy=proxy)
    keyring = Keyring(
        keys_pb2_grpc.KeysStub(channel),
        stale_seconds=config.keys_stale_seconds,
        now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
    )
    following = asyncio.create_task(keyring.stay_current(report_seconds=report_seconds))
    try:
        yield keyring
    finally:
        following.cancel()
        await asyncio.wait([following])
        await channel.close()


async def _go_on(step: Callable[[], Awaitable[None]], *, pause_seconds: float) -> None:
    """Repeat the step for ever, not sooner than `pause_seconds` after it began."""
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        try:
            await step()
        except grpc.aio.AioRpcError as error:
            log.warning("keys not followed", extra={"code": error.code().name})
        except Exception as error:
            log.error("keys not followed", extra=describe_failure(error))
        await asyncio.sleep(max(0.0, pause_seconds - (loop.time() - began)))


def _digest_of(text: str) -> bytes:
    """The hash that a key is remembered by; raises `KeyNotValid` if the text can be no key's."""
    if len(text) > _MAX_TEXT_LENGTH or not text.isascii():
        raise KeyNotValid
    return blake2b(text.encode()).digest()  # A third of SHA-256's time on such a short text.


def _digest_of_session(key_uid: str) -> bytes:
    """What a session's key is remembered by, which is no text's hash."""
    return blake2b(key_uid.encode(), person=b"session").digest()


def _name_of(origin: bytes) -> str:
    """The host in an origin, without its port."""
    return host_of(origin).partition(":")[0]
