"""Gateways hear of every change to keys and stores, in order, and of none twice."""

from __future__ import annotations

import asyncio
import time

from google.protobuf.duration_pb2 import Duration

from shoptrail.keys.v1 import keys_pb2 as pb
from tests.services.keys.conftest import Scene, new_key, new_store, refusal_of


async def watch(scene: Scene, after: int | None, seconds: int = 0) -> pb.WatchRevisionsResponse:
    request = pb.WatchRevisionsRequest(after_position=after, wait=Duration(seconds=seconds))
    return await scene.gateway.WatchRevisions(request, timeout=seconds + 5)


async def test_whoever_knows_no_position_is_told_where_to_begin(scene: Scene) -> None:
    empty = await watch(scene, None, seconds=20)
    await new_store(scene)
    begun = await watch(scene, None, seconds=20)

    assert empty == pb.WatchRevisionsResponse(position=0)
    assert begun == pb.WatchRevisionsResponse(position=1)


async def test_a_change_is_told_within_a_second(scene: Scene) -> None:
    store = await new_store(scene)
    key = (await new_key(scene, store)).key
    position = (await watch(scene, None)).position
    waiting = asyncio.create_task(watch(scene, position, seconds=20))
    await watch(scene, position)  # By now the other waits.

    began = time.monotonic()
    await scene.operator.RevokeKey(
        pb.RevokeKeyRequest(store_uid=store.uid, key_uid=key.uid), timeout=5
    )
    answer = await waiting

    assert time.monotonic() - began < 1
    assert list(answer.revisions) == [pb.Revision(key_uid=key.uid, store_uid=store.uid)]
    assert answer.position == position + 1


async def test_after_a_gap_all_that_was_missed_is_told_in_order(scene: Scene) -> None:
    store = await new_store(scene)
    position = (await watch(scene, None)).position
    keys = [(await new_key(scene, store)).key for _ in range(3)]
    await scene.operator.DeleteStore(pb.DeleteStoreRequest(store_uid=store.uid), timeout=5)

    answer = await watch(scene, position)
    nothing = await watch(scene, answer.position)

    assert [revision.key_uid for revision in answer.revisions] == [*(key.uid for key in keys), ""]
    assert answer.revisions[-1].store_uid == store.uid
    assert nothing == pb.WatchRevisionsResponse(position=answer.position)


async def test_a_position_that_the_database_lost_is_told(scene: Scene) -> None:
    await new_store(scene)

    answer = await watch(scene, 1000, seconds=20)

    assert answer == pb.WatchRevisionsResponse(position=1)
    assert (await refusal_of(watch(scene, -1))).fields == {"after_position"}


async def test_a_verdict_says_up_to_which_revision_it_holds(scene: Scene) -> None:
    created = await new_key(scene, await new_store(scene))

    verdict = await scene.gateway.VerifyKey(pb.VerifyKeyRequest(text=created.text), timeout=5)

    assert verdict.position == (await watch(scene, None)).position == 2
