"""Which shard of the log a store belongs to."""

from __future__ import annotations

import hashlib

_HASH_BITS = 64


def shard_of(store: bytes, *, shard_count: int) -> int:
    """The shard, from 0, of the store with this uid.

    By the beginning of the hash by which Vitess places the store's rows (`binary_md5`): what a
    transaction of the log touches is then on one of its shards, as long as their number divides
    that of the log's.
    """
    digest = hashlib.md5(store, usedforsecurity=False).digest()
    return int.from_bytes(digest[: _HASH_BITS // 8]) * shard_count >> _HASH_BITS
