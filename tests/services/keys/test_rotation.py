"""Keys are rotated without a gap, deleted and restored, through Keys' own RPCs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import delete

from services.keys.peppers import Pepper
from services.keys.tables import key_uses
from shoptrail.keys.v1 import api_key_pb2, store_pb2
from shoptrail.keys.v1 import keys_pb2 as pb
from shoptrail.maintenance.v1 import maintenance_pb2
from tests.conftest import key_metadata
from tests.services.keys.conftest import (
    NOBODY,
    Scene,
    new_key,
    new_store,
    refusal_of,
    works,
)

PUBLISHABLE = api_key_pb2.KEY_KIND_PUBLISHABLE
SECRET = api_key_pb2.KEY_KIND_SECRET
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def rotate(
    scene: Scene, key: api_key_pb2.ApiKey, overlap: timedelta | None = None
) -> pb.RotateKeyResponse:
    request = pb.RotateKeyRequest(store_uid=key.store_uid, key_uid=key.uid)
    if overlap is not None:
        request.overlap.FromTimedelta(overlap)
    return await scene.operator.RotateKey(request, timeout=5)


async def get(scene: Scene, key: api_key_pb2.ApiKey) -> api_key_pb2.ApiKey:
    request = pb.GetKeyRequest(store_uid=key.store_uid, key_uid=key.uid)
    return (await scene.operator.GetKey(request, timeout=5)).key


async def successor_text(scene: Scene, text: str) -> str:
    answer = await scene.gateway.VerifyKey(pb.VerifyKeyRequest(text=text), timeout=5)
    return answer.successor_text


async def run(scene: Scene, job: str) -> int:
    response = await scene.cron.RunCron(maintenance_pb2.RunCronRequest(job=job), timeout=30)
    return response.run.row_count


async def report(
    scene: Scene, key: api_key_pb2.ApiKey, time: datetime, *, origin: str = "", sdk: str = ""
) -> None:
    use = pb.KeyUse(key_uid=key.uid, origin=origin, sdk=sdk)
    use.use_time.FromDatetime(time)
    await scene.gateway.ReportKeyUse(pb.ReportKeyUseRequest(uses=[use]), timeout=5)


async def made(scene: Scene, store: store_pb2.Store, **fields: Any) -> pb.CreateKeyResponse:
    request = pb.CreateKeyRequest(store_uid=store.uid, kind=PUBLISHABLE, **fields)
    return await scene.operator.CreateKey(request, timeout=5)


@pytest.mark.parametrize("kind", [PUBLISHABLE, SECRET])
async def test_both_keys_work_during_the_overlap_and_the_successor_after_it(
    scene: Scene, kind: api_key_pb2.KeyKind.ValueType
) -> None:
    old = await new_key(scene, await new_store(scene), kind, test=True)

    rotated = await rotate(scene, old.key, HOUR)
    scene.clock.time += HOUR - timedelta(microseconds=1)
    during = [await works(scene, old.text), await works(scene, rotated.text)]
    scene.clock.time += timedelta(microseconds=1)
    after = [await works(scene, old.text), await works(scene, rotated.text)]

    assert (during, after) == ([True, True], [False, True])
    assert rotated.text[:8] == old.text[:8]
    assert rotated.text != old.text
    assert rotated.key.scopes == old.key.scopes
    assert rotated.key.display_name == old.key.display_name
    assert rotated.old_key.successor_key_uid == rotated.key.uid
    assert rotated.old_key.expire_time.ToDatetime(UTC) == scene.clock.time


async def test_a_key_can_be_rotated_without_overlap(scene: Scene) -> None:
    old = await new_key(scene, await new_store(scene))

    rotated = await rotate(scene, old.key, timedelta())

    assert not await works(scene, old.text)
    assert await works(scene, rotated.text)
    assert rotated.old_key.revoke_time.ToDatetime(UTC) == scene.clock.time


async def test_the_overlap_is_a_day_if_none_is_chosen_and_never_prolongs_a_key(
    scene: Scene,
) -> None:
    store = await new_store(scene)
    endless, ending = (
        await new_key(scene, store),
        await new_key(scene, store, expire_time=scene.clock.time + HOUR),
    )

    first, second = await rotate(scene, endless.key), await rotate(scene, ending.key)

    assert first.old_key.expire_time.ToDatetime(UTC) == scene.clock.time + DAY
    assert second.old_key.expire_time == ending.key.expire_time
    assert not second.key.HasField("expire_time")


async def test_rotating_twice_makes_one_successor(scene: Scene) -> None:
    old = await new_key(scene, await new_store(scene))

    outcomes = await asyncio.gather(
        *(rotate(scene, old.key, HOUR) for _ in range(5)), return_exceptions=True
    )

    (rotated,) = [each for each in outcomes if isinstance(each, pb.RotateKeyResponse)]
    refusal = await refusal_of(rotate(scene, old.key, HOUR))
    listed = await scene.operator.ListKeys(
        pb.ListKeysRequest(store_uid=old.key.store_uid), timeout=5
    )
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.reason == "WRONG_STATE"
    assert refusal.metadata == {"uid": old.key.uid, "successor_key_uid": rotated.key.uid}
    assert [key.uid for key in listed.keys] == [rotated.key.uid, old.key.uid]


async def test_a_key_whose_successor_was_revoked_can_be_rotated_again(scene: Scene) -> None:
    old = await new_key(scene, await new_store(scene))
    lost = (await rotate(scene, old.key, HOUR)).key
    await scene.operator.RevokeKey(
        pb.RevokeKeyRequest(store_uid=lost.store_uid, key_uid=lost.uid), timeout=5
    )

    again = await rotate(scene, old.key, HOUR)

    assert again.old_key.successor_key_uid == again.key.uid != lost.uid
    assert await works(scene, again.text)


async def test_a_key_that_has_ended_is_not_rotated_or_changed(scene: Scene) -> None:
    old = await new_key(scene, await new_store(scene), expire_time=scene.clock.time + HOUR)
    scene.clock.time += HOUR

    for call in (
        rotate(scene, old.key),
        scene.operator.UpdateKey(
            pb.UpdateKeyRequest(
                store_uid=old.key.store_uid, key_uid=old.key.uid, display_name="New"
            ),
            timeout=5,
        ),
    ):
        assert (await refusal_of(call)).reason == "WRONG_STATE"


@pytest.mark.parametrize(
    "overlap", [Duration(seconds=-1), Duration(seconds=91 * 86400), Duration(seconds=10**12)]
)
async def test_an_overlap_lies_between_none_and_90_days(scene: Scene, overlap: Duration) -> None:
    old = await new_key(scene, await new_store(scene))
    request = pb.RotateKeyRequest(store_uid=old.key.store_uid, key_uid=old.key.uid, overlap=overlap)
    request.expire_time.FromDatetime(scene.clock.time)

    refusal = await refusal_of(scene.operator.RotateKey(request, timeout=5))

    assert refusal.fields == {"overlap", "expire_time"}


async def test_a_key_does_not_rotate_one_that_may_do_more(scene: Scene) -> None:
    old = await new_key(scene, await new_store(scene))
    caller = key_metadata("keys:write", "events:read", store_uid=old.key.store_uid)
    request = pb.RotateKeyRequest(store_uid=old.key.store_uid, key_uid=old.key.uid)

    refusal = await refusal_of(scene.gateway.RotateKey(request, timeout=5, metadata=caller))

    assert refusal.reason == "SCOPE_MISSING"
    assert not (await get(scene, old.key)).successor_key_uid


async def test_pages_are_told_the_last_successor_of_a_publishable_key(scene: Scene) -> None:
    store = await new_store(scene)
    first = await new_key(scene, store, PUBLISHABLE)
    secret = await new_key(scene, store)
    second = await rotate(scene, first.key, DAY)
    scene.peppers.insert(0, Pepper(version=2, secret=b"2" * 32))
    third = await rotate(scene, second.key, HOUR)
    await rotate(scene, secret.key, DAY)

    assert await successor_text(scene, first.text) == third.text
    assert await successor_text(scene, second.text) == third.text
    assert await successor_text(scene, third.text) == ""
    assert await successor_text(scene, secret.text) == ""
    await scene.operator.RevokeKey(
        pb.RevokeKeyRequest(store_uid=store.uid, key_uid=third.key.uid), timeout=5
    )
    assert await successor_text(scene, first.text) == second.text


async def test_publishable_keys_are_rotated_by_themselves_when_they_are_old_enough(
    scene: Scene,
) -> None:
    now = scene.clock.time
    scene.clock.time = now - 2 * DAY
    store = await new_store(scene)
    due = await made(
        scene, store, rotate_period=Duration(seconds=86400), allowed_origins=["a.test"]
    )
    later = await made(scene, store, rotate_period=Duration(seconds=5 * 86400))
    never = await made(scene, store)
    scene.clock.time = now

    counts = [await run(scene, "rotate-keys")]
    text = await successor_text(scene, due.text)

    assert counts == [1]
    assert await works(scene, text)
    old = await get(scene, due.key)
    new = (await scene.gateway.VerifyKey(pb.VerifyKeyRequest(text=text), timeout=5)).key
    assert old.successor_key_uid == new.uid
    assert timedelta(days=6) < old.expire_time.ToDatetime(UTC) - now < timedelta(days=8)
    assert list(new.allowed_origins) == ["a.test"]
    assert new.rotate_period == due.key.rotate_period
    assert not (await get(scene, later.key)).successor_key_uid
    assert not (await get(scene, never.key)).successor_key_uid


async def test_keys_of_deleted_stores_and_keys_that_ended_are_not_rotated_by_themselves(
    scene: Scene,
) -> None:
    now = scene.clock.time
    scene.clock.time = now - 2 * DAY
    open_store, deleted_store = await new_store(scene), await new_store(scene)
    day = Duration(seconds=86400)
    keys = [
        (await made(scene, store, rotate_period=day)).key
        for store in (open_store, open_store, deleted_store)
    ]
    await scene.operator.RevokeKey(
        pb.RevokeKeyRequest(store_uid=open_store.uid, key_uid=keys[0].uid), timeout=5
    )
    await rotate(scene, keys[1])
    await scene.operator.DeleteStore(pb.DeleteStoreRequest(store_uid=deleted_store.uid), timeout=5)
    scene.clock.time = now

    # The one that was rotated by hand has a successor, which is due by now.
    assert await run(scene, "rotate-keys") == 1
    assert not (await get(scene, keys[0])).successor_key_uid
    assert not (await get(scene, keys[2])).successor_key_uid


async def test_a_key_is_changed_in_what_the_request_has(scene: Scene) -> None:
    key = (await made(scene, await new_store(scene), display_name="Shop")).key
    request = pb.UpdateKeyRequest(store_uid=key.store_uid, key_uid=key.uid)
    request.allowed_origins.hosts.extend(["Shop.Example", "*.shop.example", "shop.example"])
    request.rotate_period.FromTimedelta(30 * DAY)

    first = (await scene.operator.UpdateKey(request, timeout=5)).key
    request = pb.UpdateKeyRequest(
        store_uid=key.store_uid,
        key_uid=key.uid,
        display_name="",
        allowed_origins=pb.OriginList(),
        rotate_period=Duration(),
    )
    request.expire_time.FromDatetime(scene.clock.time + HOUR)
    second = (await scene.operator.UpdateKey(request, timeout=5)).key

    assert first.display_name == "Shop"
    assert list(first.allowed_origins) == ["shop.example", "*.shop.example"]
    assert first.rotate_period.ToTimedelta() == 30 * DAY
    assert second.display_name == ""
    assert not second.allowed_origins
    assert not second.HasField("rotate_period")
    assert second.expire_time.ToDatetime(UTC) == scene.clock.time + HOUR
    assert second == await get(scene, key)


async def test_what_is_no_host_is_refused(scene: Scene) -> None:
    store = await new_store(scene)
    key = (await made(scene, store)).key
    hosts = ["https://shop.example"]
    change = pb.UpdateKeyRequest(
        store_uid=store.uid, key_uid=key.uid, allowed_origins=pb.OriginList(hosts=hosts)
    )

    created = await refusal_of(made(scene, store, allowed_origins=hosts))
    changed = await refusal_of(scene.operator.UpdateKey(change, timeout=5))

    assert created.fields == {"allowed_origins"}
    assert changed.fields == {"allowed_origins.hosts"}


async def test_secret_keys_have_no_origins_and_no_period(scene: Scene) -> None:
    store = await new_store(scene)
    key = (await new_key(scene, store)).key
    fields = {"allowed_origins", "rotate_period"}
    create = pb.CreateKeyRequest(
        store_uid=store.uid,
        kind=SECRET,
        allowed_origins=["shop.example"],
        rotate_period=Duration(seconds=86400),
    )
    change = pb.UpdateKeyRequest(
        store_uid=store.uid,
        key_uid=key.uid,
        allowed_origins=pb.OriginList(hosts=["shop.example"]),
        rotate_period=Duration(seconds=1),
    )

    assert (await refusal_of(scene.operator.CreateKey(create, timeout=5))).fields == fields
    assert (await refusal_of(scene.operator.UpdateKey(change, timeout=5))).fields == fields


async def test_a_period_beyond_all_time_is_refused(scene: Scene) -> None:
    store = await new_store(scene)
    key = (await made(scene, store)).key
    change = pb.UpdateKeyRequest(
        store_uid=store.uid, key_uid=key.uid, rotate_period=Duration(seconds=2**63 - 1)
    )

    refusal = await refusal_of(scene.operator.UpdateKey(change, timeout=5))
    assert refusal.fields == {"rotate_period"}


async def test_a_deleted_key_is_hidden_does_not_work_and_can_be_restored(scene: Scene) -> None:
    created = await new_key(scene, await new_store(scene))
    aim: dict[str, Any] = {"store_uid": created.key.store_uid, "key_uid": created.key.uid}
    listing = pb.ListKeysRequest(store_uid=created.key.store_uid)

    deleted = (await scene.operator.DeleteKey(pb.DeleteKeyRequest(**aim), timeout=5)).key
    scene.clock.time += HOUR
    again = (await scene.operator.DeleteKey(pb.DeleteKeyRequest(**aim), timeout=5)).key
    hidden = await scene.operator.ListKeys(listing, timeout=5)
    listing.show_deleted = True
    shown = await scene.operator.ListKeys(listing, timeout=5)
    worked = await works(scene, created.text)
    for call in (
        rotate(scene, created.key),
        scene.operator.UpdateKey(pb.UpdateKeyRequest(**aim), timeout=5),
    ):
        assert (await refusal_of(call)).code is grpc.StatusCode.NOT_FOUND
    restored = (await scene.operator.UndeleteKey(pb.UndeleteKeyRequest(**aim), timeout=5)).key

    assert deleted.purge_time.ToDatetime(UTC) == scene.clock.time - HOUR + 30 * DAY
    assert (again, list(hidden.keys), list(shown.keys)) == (deleted, [], [deleted])
    assert not worked
    assert restored == created.key
    assert await works(scene, created.text)


async def test_a_deleted_key_leaves_for_good_after_its_purge_time(scene: Scene) -> None:
    now = scene.clock.time
    scene.clock.time = now - 31 * DAY
    store = await new_store(scene)
    gone, kept = (await new_key(scene, store)).key, (await new_key(scene, store)).key
    for key, age in ((gone, 31), (kept, 29)):
        scene.clock.time = now - age * DAY
        request = pb.DeleteKeyRequest(store_uid=store.uid, key_uid=key.uid)
        await scene.operator.DeleteKey(request, timeout=5)
    scene.clock.time = now
    undelete = pb.UndeleteKeyRequest(store_uid=store.uid, key_uid=gone.uid)
    late = await refusal_of(scene.operator.UndeleteKey(undelete, timeout=5))

    assert await run(scene, "purge-deleted") == 1
    assert late.code is grpc.StatusCode.NOT_FOUND
    assert (await refusal_of(get(scene, gone))).code is grpc.StatusCode.NOT_FOUND
    assert (await get(scene, kept)).uid == kept.uid


async def test_keys_are_found_under_their_own_store_only(scene: Scene) -> None:
    own, other = await new_store(scene), await new_store(scene)
    key = (await new_key(scene, own)).key
    caller = key_metadata("keys:read", "keys:write", store_uid=other.uid)

    for uid in (key.uid, f"key_{NOBODY}", "x" * 100_000):
        aim: dict[str, Any] = {"store_uid": other.uid, "key_uid": uid}
        for call in (
            scene.gateway.GetKey(pb.GetKeyRequest(**aim), timeout=5, metadata=caller),
            scene.gateway.UpdateKey(pb.UpdateKeyRequest(**aim), timeout=5, metadata=caller),
            scene.gateway.RotateKey(pb.RotateKeyRequest(**aim), timeout=5, metadata=caller),
            scene.gateway.DeleteKey(pb.DeleteKeyRequest(**aim), timeout=5, metadata=caller),
            scene.gateway.UndeleteKey(pb.UndeleteKeyRequest(**aim), timeout=5, metadata=caller),
        ):
            assert (await refusal_of(call)).code is grpc.StatusCode.NOT_FOUND


async def test_a_store_is_renamed(scene: Scene) -> None:
    store = await new_store(scene)
    scene.clock.time += HOUR
    request = pb.UpdateStoreRequest(store_uid=store.uid, display_name="Coffee")

    renamed = (await scene.operator.UpdateStore(request, timeout=5)).store
    same = (
        await scene.operator.UpdateStore(pb.UpdateStoreRequest(store_uid=store.uid), timeout=5)
    ).store
    request.display_name = ""
    refusal = await refusal_of(scene.operator.UpdateStore(request, timeout=5))
    await scene.operator.DeleteStore(pb.DeleteStoreRequest(store_uid=store.uid), timeout=5)
    request.display_name = "Tea"
    deleted = await refusal_of(scene.operator.UpdateStore(request, timeout=5))

    assert renamed.display_name == "Coffee"
    assert renamed.update_time.ToDatetime(UTC) == scene.clock.time
    assert same == renamed
    assert refusal.fields == {"display_name"}
    assert deleted.code is grpc.StatusCode.NOT_FOUND


async def test_what_a_key_was_last_used_by_is_known(scene: Scene) -> None:
    key = (await made(scene, await new_store(scene))).key
    later = scene.clock.time + HOUR

    await report(scene, key, later, origin="shop.example", sdk="analytics-python/2.4.0")
    await report(scene, key, scene.clock.time, origin="old.example", sdk="old/1")
    first = await get(scene, key)
    await report(scene, key, later + HOUR)
    second = await get(scene, key)

    assert first.last_used_time.ToDatetime(UTC) == later
    assert (first.last_origin, first.last_sdk) == ("shop.example", "analytics-python/2.4.0")
    assert second.last_used_time.ToDatetime(UTC) == later + HOUR
    assert (second.last_origin, second.last_sdk) == ("shop.example", "analytics-python/2.4.0")


async def test_uses_of_keys_from_before_uses_were_noted_are_noted_too(scene: Scene) -> None:
    created = await new_key(scene, await new_store(scene))
    async with scene.database.begin() as transaction:
        await transaction.execute(delete(key_uses))

    before = await get(scene, created.key)
    await report(scene, created.key, scene.clock.time)
    after = await get(scene, created.key)

    assert await works(scene, created.text)
    assert not before.HasField("last_used_time")
    assert after.last_used_time.ToDatetime(UTC) == scene.clock.time


async def test_a_key_is_safe_to_revoke_a_day_after_its_last_use(scene: Scene) -> None:
    key = (await new_key(scene, await new_store(scene))).key
    start = scene.clock.time
    seen = []
    for hours in (0, 23, 25):
        scene.clock.time = start + timedelta(hours=hours)
        seen.append((await get(scene, key)).safe_to_revoke)
    await report(scene, key, scene.clock.time)
    seen.append((await get(scene, key)).safe_to_revoke)
    await scene.operator.RevokeKey(
        pb.RevokeKeyRequest(store_uid=key.store_uid, key_uid=key.uid), timeout=5
    )
    seen.append((await get(scene, key)).safe_to_revoke)

    assert seen == [False, False, True, False, True]


async def test_uses_of_unknown_keys_are_passed_over_and_bad_ones_refused(scene: Scene) -> None:
    key = (await new_key(scene, await new_store(scene))).key
    unknown = pb.KeyUse(key_uid=f"key_{NOBODY}")
    unknown.use_time.FromDatetime(scene.clock.time)
    await scene.gateway.ReportKeyUse(pb.ReportKeyUseRequest(uses=[unknown]), timeout=5)
    await scene.gateway.ReportKeyUse(pb.ReportKeyUseRequest(), timeout=5)

    bad = pb.ReportKeyUseRequest(
        uses=[
            pb.KeyUse(key_uid="nobody", origin="x" * 256, sdk="x" * 65),
            pb.KeyUse(key_uid=key.uid),
        ]
    )
    refusal = await refusal_of(scene.gateway.ReportKeyUse(bad, timeout=5))
    many = pb.ReportKeyUseRequest(uses=[unknown] * 1001)

    assert refusal.fields == {
        "uses[0].key_uid",
        "uses[0].origin",
        "uses[0].sdk",
        "uses[0].use_time",
        "uses[1].use_time",
    }
    assert (await refusal_of(scene.gateway.ReportKeyUse(many, timeout=5))).fields == {"uses"}
