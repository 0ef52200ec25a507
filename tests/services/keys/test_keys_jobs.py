"""Keys' scheduled tasks, called as cron calls them.

Jobs go by the database's time, which is now; so what is due was made in the past.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import grpc
from sqlalchemy import Table, func, insert, select

from common.uid import new_uid
from services.keys.tables import api_keys, stores
from shoptrail.keys.v1 import keys_pb2 as pb
from shoptrail.maintenance.v1 import maintenance_pb2
from tests.services.keys.conftest import Scene, new_key, new_store, refusal_of, works

RAN = maintenance_pb2.RUN_CRON_OUTCOME_RAN


async def run(scene: Scene, job: str) -> int:
    """Run a job for its latest scheduled time; returns how many rows it changed."""
    response = await scene.cron.RunCron(maintenance_pb2.RunCronRequest(job=job), timeout=30)
    assert response.outcome == RAN
    return response.run.row_count


async def delete_store(scene: Scene, store_uid: str) -> None:
    await scene.operator.DeleteStore(pb.DeleteStoreRequest(store_uid=store_uid), timeout=5)


async def count(scene: Scene, table: Table) -> int:
    async with scene.database.read() as snapshot:
        return await snapshot.scalar(select(func.count()).select_from(table)) or 0


async def test_expire_keys_notes_when_keys_ended(scene: Scene) -> None:
    scene.clock.time -= timedelta(days=1)
    store = await new_store(scene)
    hour = timedelta(hours=1)
    expired = (await new_key(scene, store, expire_time=scene.clock.time + hour)).key
    expires_later = (await new_key(scene, store, expire_time=scene.clock.time + 25 * hour)).key
    never = (await new_key(scene, store)).key
    revoked = (await new_key(scene, store, expire_time=scene.clock.time + hour)).key
    revoke = pb.RevokeKeyRequest(store_uid=store.uid, key_uid=revoked.uid)
    revoked = (await scene.operator.RevokeKey(revoke, timeout=5)).key

    row_count = await run(scene, "expire-keys")

    listed = await scene.operator.ListKeys(pb.ListKeysRequest(store_uid=store.uid), timeout=5)
    expired.revoke_time.CopyFrom(expired.expire_time)
    expired.safe_to_revoke = True
    assert row_count == 1
    assert list(listed.keys) == [revoked, never, expires_later, expired]


async def test_purge_deleted_removes_stores_that_are_due_with_their_keys(scene: Scene) -> None:
    now = scene.clock.time
    scene.clock.time = now - timedelta(days=31)
    due, restored, kept = [await new_store(scene, name) for name in ("Due", "Restored", "Kept")]
    keys = [await new_key(scene, store) for store in (due, due, restored, kept)]
    await delete_store(scene, due.uid)
    await delete_store(scene, restored.uid)
    scene.clock.time = now - timedelta(days=29)
    await delete_store(scene, kept.uid)
    undelete = pb.UndeleteStoreRequest(store_uid=restored.uid)
    await scene.operator.UndeleteStore(undelete, timeout=5)
    scene.clock.time = now

    row_count = await run(scene, "purge-deleted")

    listed = await scene.operator.ListStores(pb.ListStoresRequest(show_deleted=True), timeout=5)
    assert row_count == 3
    assert [store.uid for store in listed.stores] == [kept.uid, restored.uid]
    assert await count(scene, api_keys) == 2
    assert await works(scene, keys[2].text)
    for call in (
        scene.operator.GetStore(pb.GetStoreRequest(store_uid=due.uid), timeout=5),
        scene.operator.UndeleteStore(pb.UndeleteStoreRequest(store_uid=due.uid), timeout=5),
    ):
        assert (await refusal_of(call)).code is grpc.StatusCode.NOT_FOUND

    await scene.operator.UndeleteStore(pb.UndeleteStoreRequest(store_uid=kept.uid), timeout=5)
    assert await works(scene, keys[3].text)


async def test_purge_deleted_removes_keys_90_days_after_their_end(scene: Scene) -> None:
    now = scene.clock.time
    scene.clock.time = now - timedelta(days=200)
    store = await new_store(scene)
    ended_long_ago, ended_lately, works_on = [(await new_key(scene, store)).key for _ in range(3)]

    async def revoke(key_uid: str, time: datetime) -> None:
        scene.clock.time = time
        request = pb.RevokeKeyRequest(store_uid=store.uid, key_uid=key_uid)
        await scene.operator.RevokeKey(request, timeout=5)

    await revoke(ended_long_ago.uid, now - timedelta(days=91))
    await revoke(ended_lately.uid, now - timedelta(days=89))

    row_count = await run(scene, "purge-deleted")

    listed = await scene.operator.ListKeys(pb.ListKeysRequest(store_uid=store.uid), timeout=5)
    assert row_count == 1
    assert [key.uid for key in listed.keys] == [works_on.uid, ended_lately.uid]


async def test_purge_deleted_removes_more_than_one_batch(scene: Scene) -> None:
    scene.clock.time -= timedelta(days=31)
    store = await new_store(scene)
    async with scene.database.begin() as transaction:
        store_id = await transaction.scalar(select(stores.c.id))
        await transaction.execute(
            insert(api_keys),
            [
                {
                    "uid": new_uid("key"),
                    "store_id": store_id,
                    "kind": "pk",
                    "display_name": "",
                    "hint": "",
                    "pepper_version": 1,
                    "hash": number.to_bytes(32),
                    "scopes": "events:write",
                    "create_time": scene.clock.time,
                }
                for number in range(1, 1202)
            ],
        )
    await delete_store(scene, store.uid)

    row_count = await run(scene, "purge-deleted")

    assert row_count == 1202
    assert await count(scene, api_keys) == 0
    assert await count(scene, stores) == 0


async def test_keys_lists_its_jobs(scene: Scene) -> None:
    listed = await scene.cron.ListJobs(maintenance_pb2.ListJobsRequest(), timeout=5)

    assert [job.name for job in listed.jobs] == [
        "analyse-tables",
        "expire-keys",
        "purge-deleted",
        "rotate-keys",
        "trim-runs",
    ]
