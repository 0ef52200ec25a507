"""What Ingest asks of its log goes to one shard of Vitess, and where it doesn't, it is said why."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.uid import new_uid, parse_uid
from deploy.vitess.placement import EVERYWHERE, INGEST
from deploy.vitess.routing import unrouted_tables
from deploy.vitess.vschema import place_of_log_shard
from services.ingest.shards import shard_of
from shoptrail.ingest.v1 import ingest_pb2
from tests.conftest import key_metadata
from tests.services.ingest.conftest import (
    ACCEPTED,
    ALL,
    DUPLICATE,
    OTHER_STORE,
    REJECTED,
    STORE,
    Stub,
    batch,
    read_all,
    submission,
    sums_of,
    verdicts,
    viewed,
)
from tests.statements import caught, without_shard


@pytest.mark.parametrize("databases", ["mariadb"], indirect=True)
async def test_every_statement_of_the_hot_path_names_its_shard(ingest: Stub, log: Stub) -> None:
    with caught() as statements:
        first = batch(viewed("one"), viewed("two"), b"{}")
        assert verdicts(await ingest.Append(first, timeout=10)) == [ACCEPTED, ACCEPTED, REJECTED]
        both = ingest_pb2.AppendRequest(
            submissions=[
                submission(viewed("two"), viewed("three")),
                submission(viewed("one"), store_uid=OTHER_STORE),
            ]
        )
        assert DUPLICATE in verdicts(await ingest.Append(both, timeout=10))
        assert len(await read_all(log)) == 4
        receipts = ingest_pb2.GetReceiptsRequest(store_uid=STORE, message_ids=["one", "four"])
        await ingest.GetReceipts(receipts, timeout=10, metadata=ALL)
        rejected = ingest_pb2.ListRejectedEventsRequest(store_uid=STORE)
        await ingest.ListRejectedEvents(
            rejected, timeout=10, metadata=key_metadata("events:read", store_uid=STORE)
        )
        await sums_of(ingest)

    unrouted = {each for each in statements if unrouted_tables(each, INGEST)}
    excused = {
        each: reason
        for each in unrouted
        for pattern, reason in EVERYWHERE["ingest"].items()
        if re.search(pattern, each)
    }
    assert len(statements) > 15
    assert unrouted - set(excused) == set()
    assert set(excused.values()) == set(EVERYWHERE["ingest"].values()), "an excuse for nothing"

    # And one that lost its shard would be found.
    careless = [
        without
        for each in set(statements) - unrouted
        if (without := without_shard(each, dict(INGEST))) is not None
    ]
    assert len(careless) >= 5
    assert all(unrouted_tables(each, INGEST) for each in careless), careless


_COUNTS = st.sampled_from([2**power for power in range(11)])


@given(store=st.binary(min_size=16, max_size=16), log_shards=_COUNTS, shards=_COUNTS)
def test_a_store_is_where_its_shard_of_the_log_is(
    store: bytes, log_shards: int, shards: int
) -> None:
    shards = min(shards, log_shards)

    def shard_at(place: int) -> int:
        return place * shards >> 64

    # Where Vitess puts rows by `binary_md5`, and by the map that it is given.
    of_rows = int.from_bytes(hashlib.md5(store, usedforsecurity=False).digest()[:8])
    of_head = place_of_log_shard(shard_of(store, shard_count=log_shards), shard_count=log_shards)
    assert shard_at(of_rows) == shard_at(of_head)


def test_stores_are_spread_over_all_shards_of_the_log() -> None:
    counts = [0] * 4
    for _ in range(400):
        counts[shard_of(parse_uid("sto", new_uid("sto")), shard_count=4)] += 1
    assert min(counts) > 50
