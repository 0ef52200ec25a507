"""Holds each key to its rate, so that a loop gone wild is told to slow down."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from common.errors import RateLimited
from gateway.exchange import Headers

# A key that is forgotten is one that others followed, and has its whole burst again.
_MAX_KEYS = 10_000
# Longer, and SDKs would take the answer for a mistake.
_MAX_RETRY_SECONDS = 300


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class RateLimit:
    """A bucket of tokens for each key, one for an event; in this process only.

    A key may send `burst` events at once, and `events_per_second` for ever. The events
    of a request are counted together: it is served if there is one token, and the debt
    that may remain is waited for by the next. 0 events a second is no limit.
    """

    def __init__(
        self, *, events_per_second: float, burst: float, monotonic: Callable[[], float]
    ) -> None:
        self._rate = events_per_second
        self._burst = max(burst, 1.0)
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        window = math.ceil(self._burst / self._rate) if self._rate else 0
        # https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
        self._policy = (b"ratelimit-policy", b'"key";q=%d;w=%d' % (self._burst, window))

    def check(self, key_uid: str) -> None:
        """Raise `RateLimited` if the key has no token left."""
        if not self._rate:
            return
        tokens = self._fill(key_uid).tokens
        if tokens < 1:
            raise RateLimited(
                events_per_second=self._rate,
                retry_seconds=min((1 - tokens) / self._rate, _MAX_RETRY_SECONDS),
            )

    def take(self, key_uid: str, event_count: int) -> Headers:
        """Note that a key that was just checked sends so many events; none count as one.

        Returns the headers that say how many it may send now, and in how many seconds
        its whole burst.
        """
        if not self._rate:
            return ()
        bucket = self._buckets.get(key_uid) or self._fill(key_uid)
        bucket.tokens -= event_count or 1
        return self._describe(bucket.tokens)

    def headers(self, key_uid: str) -> Headers:
        """The same headers, without taking anything."""
        return self._describe(self._fill(key_uid).tokens) if self._rate else ()

    def _describe(self, tokens: float) -> Headers:
        left = tokens if tokens > 0 else 0
        full_in = math.ceil((self._burst - tokens) / self._rate)
        return self._policy, (b"ratelimit", b'"key";r=%d;t=%d' % (left, full_in))

    def _fill(self, key_uid: str) -> _Bucket:
        """The key's bucket, with what has flowed into it by now."""
        now = self._monotonic()
        bucket = self._buckets.get(key_uid)
        if bucket is None:
            bucket = self._buckets[key_uid] = _Bucket(self._burst, filled_at=now)
            if len(self._buckets) > _MAX_KEYS:
                self._buckets.popitem(last=False)
            return bucket
        self._buckets.move_to_end(key_uid)
        filled = bucket.tokens + (now - bucket.filled_at) * self._rate
        bucket.tokens = filled if filled < self._burst else self._burst
        bucket.filled_at = now
        return bucket
