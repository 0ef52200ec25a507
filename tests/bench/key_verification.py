"""Measures what a remembered key costs each request in the gateway, in microseconds."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from common.keyring import Keyring
from services.keys.key_text import Kind, new_key_text
from shoptrail.keys.v1 import api_key_pb2, keys_pb2

_ROUNDS, _CALLS = 9, 50_000
_HEADERS = {b"origin": b"https://www.shop.example", b"user-agent": b"Mozilla/5.0"}


class _Keys:
    """Knows every key; stands in for the channel, which a remembered key never uses."""

    def __init__(self, *allowed_origins: str) -> None:
        self._allowed_origins = allowed_origins

    async def VerifyKey(self, request: Any, timeout: float) -> keys_pb2.VerifyKeyResponse:
        answer = keys_pb2.VerifyKeyResponse(
            key=api_key_pb2.ApiKey(
                uid="key_1",
                kind=api_key_pb2.KEY_KIND_PUBLISHABLE,
                scopes=["events:write"],
                allowed_origins=self._allowed_origins,
            )
        )
        answer.remember.FromSeconds(3600)
        return answer


async def measure_keys() -> tuple[float, float]:
    """The microseconds for each request: of a key, and of one that is bound to hosts."""
    return await _measure(), await _measure("*.shop.example")


async def _measure(*allowed_origins: str) -> float:
    """The best round's microseconds for each request."""
    keys: Any = _Keys(*allowed_origins)
    keyring = Keyring(
        keys, stale_seconds=300, now=lambda: datetime.now(UTC), monotonic=time.monotonic
    )
    text = new_key_text(Kind.PUBLISHABLE, test=False)
    rounds = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        for _ in range(_CALLS):
            await keyring.verify(text, _HEADERS)
        rounds.append((time.perf_counter() - began) / _CALLS * 1e6)
    return min(rounds)
