"""A store's life, through Keys' own RPCs."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import UTC, timedelta

import grpc
import pytest

from shoptrail.keys.v1 import keys_pb2 as pb
from tests.conftest import key_metadata
from tests.services.keys.conftest import NOBODY, Scene, new_store, refusal_of


async def test_a_store_is_made_read_and_listed(scene: Scene) -> None:
    store = await new_store(scene, "Tea — 茶")

    read = await scene.operator.GetStore(pb.GetStoreRequest(store_uid=store.uid), timeout=5)
    listed = await scene.operator.ListStores(pb.ListStoresRequest(), timeout=5)

    assert store.uid.startswith("sto_")
    assert store.display_name == "Tea — 茶"
    assert store.create_time.ToDatetime(tzinfo=UTC) == scene.clock.time
    assert not store.HasField("delete_time")
    assert read.store == store
    assert list(listed.stores) == [store]


@pytest.mark.parametrize("display_name", ["", "x" * 256])
async def test_a_store_needs_a_name_of_1_to_255_characters(scene: Scene, display_name: str) -> None:
    refusal = await refusal_of(
        scene.operator.CreateStore(pb.CreateStoreRequest(display_name=display_name), timeout=5)
    )

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == {"display_name"}
    assert await new_store(scene, "茶" * 255)


async def test_a_deleted_store_is_hidden_and_can_be_restored(scene: Scene) -> None:
    store = await new_store(scene)
    delete = pb.DeleteStoreRequest(store_uid=store.uid)
    undelete = pb.UndeleteStoreRequest(store_uid=store.uid)

    deleted = (await scene.operator.DeleteStore(delete, timeout=5)).store
    hidden = await scene.operator.ListStores(pb.ListStoresRequest(), timeout=5)
    shown = await scene.operator.ListStores(pb.ListStoresRequest(show_deleted=True), timeout=5)
    read = await scene.operator.GetStore(pb.GetStoreRequest(store_uid=store.uid), timeout=5)
    restored = (await scene.operator.UndeleteStore(undelete, timeout=5)).store

    assert deleted.delete_time.ToDatetime(tzinfo=UTC) == scene.clock.time
    assert deleted.purge_time.ToDatetime(tzinfo=UTC) == scene.clock.time + timedelta(days=30)
    assert list(hidden.stores) == []
    assert list(shown.stores) == [deleted]
    assert read.store == deleted
    assert restored == store
    assert (await scene.operator.ListStores(pb.ListStoresRequest(), timeout=5)).stores


async def test_deleting_or_restoring_again_changes_nothing(scene: Scene) -> None:
    store = await new_store(scene)
    delete = pb.DeleteStoreRequest(store_uid=store.uid)
    undelete = pb.UndeleteStoreRequest(store_uid=store.uid)

    deleted = await scene.operator.DeleteStore(delete, timeout=5)
    scene.clock.time += timedelta(days=1)
    deleted_again = await scene.operator.DeleteStore(delete, timeout=5)
    restored = await scene.operator.UndeleteStore(undelete, timeout=5)
    scene.clock.time += timedelta(days=1)
    restored_again = await scene.operator.UndeleteStore(undelete, timeout=5)

    assert deleted_again == deleted
    assert restored_again == restored
    assert restored.store.update_time.ToDatetime(tzinfo=UTC) == scene.clock.time - timedelta(days=1)


async def test_a_store_can_be_restored_until_its_purge_time_and_not_after(scene: Scene) -> None:
    store = await new_store(scene)
    undelete = pb.UndeleteStoreRequest(store_uid=store.uid)
    await scene.operator.DeleteStore(pb.DeleteStoreRequest(store_uid=store.uid), timeout=5)

    scene.clock.time += timedelta(days=30)
    refusal = await refusal_of(scene.operator.UndeleteStore(undelete, timeout=5))
    scene.clock.time -= timedelta(microseconds=1)
    restored = await scene.operator.UndeleteStore(undelete, timeout=5)

    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert not restored.store.HasField("delete_time")


@pytest.mark.parametrize("uid", [f"sto_{NOBODY}", f"key_{NOBODY}", "", "sto_", "x" * 100_000])
async def test_a_store_that_does_not_exist_is_not_found(scene: Scene, uid: str) -> None:
    calls: list[Awaitable[object]] = [
        scene.operator.GetStore(pb.GetStoreRequest(store_uid=uid), timeout=5),
        scene.operator.DeleteStore(pb.DeleteStoreRequest(store_uid=uid), timeout=5),
        scene.operator.UndeleteStore(pb.UndeleteStoreRequest(store_uid=uid), timeout=5),
    ]

    for call in calls:
        refusal = await refusal_of(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        assert refusal.metadata["uid"] == uid[:64]


async def test_pages_hold_every_store_once_the_latest_first(scene: Scene) -> None:
    made = [(await new_store(scene, f"Shop {number}")).uid for number in range(5)]

    seen, request = [], pb.ListStoresRequest(page_size=2)
    while True:
        page = await scene.operator.ListStores(request, timeout=5)
        seen.append([store.uid for store in page.stores])
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token

    assert seen == [made[:2:-1], made[2:0:-1], made[:1]]


async def test_a_page_token_serves_its_own_call_only(scene: Scene) -> None:
    for number in range(2):
        await new_store(scene, f"Shop {number}")
    page = await scene.operator.ListStores(pb.ListStoresRequest(page_size=1), timeout=5)
    token = page.next_page_token

    forged = ("B" if token[20] != "B" else "C").join([token[:20], token[21:]])
    for request in (
        pb.ListStoresRequest(page_size=1, page_token=forged),
        pb.ListStoresRequest(page_size=1, page_token="1"),
        pb.ListStoresRequest(page_size=1, page_token="…"),
        pb.ListStoresRequest(page_size=1, page_token=token, show_deleted=True),
    ):
        refusal = await refusal_of(scene.operator.ListStores(request, timeout=5))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.reason == "PAGE_TOKEN_NOT_VALID"


async def test_a_negative_page_size_is_refused(scene: Scene) -> None:
    refusal = await refusal_of(
        scene.operator.ListStores(pb.ListStoresRequest(page_size=-1), timeout=5)
    )

    assert refusal.fields == {"page_size"}


async def test_a_key_of_a_store_sees_that_store_only(scene: Scene) -> None:
    own, other = await new_store(scene, "Own"), await new_store(scene, "Other")
    key = key_metadata("stores:read", store_uid=own.uid)

    listed = await scene.gateway.ListStores(pb.ListStoresRequest(), timeout=5, metadata=key)
    read = await scene.gateway.GetStore(
        pb.GetStoreRequest(store_uid=own.uid), timeout=5, metadata=key
    )
    refusal = await refusal_of(
        scene.gateway.GetStore(pb.GetStoreRequest(store_uid=other.uid), timeout=5, metadata=key)
    )

    assert list(listed.stores) == [own]
    assert read.store == own
    assert refusal.reason == "WRONG_STORE"


async def test_a_key_of_no_store_sees_all_stores(scene: Scene) -> None:
    stores = [await new_store(scene, name) for name in ("One", "Two")]

    listed = await scene.gateway.ListStores(
        pb.ListStoresRequest(), timeout=5, metadata=key_metadata("stores:read")
    )

    assert list(listed.stores) == stores[::-1]


async def test_the_gateway_makes_no_store_without_a_key_that_may(scene: Scene) -> None:
    request = pb.CreateStoreRequest(display_name="Tea")

    without = await refusal_of(scene.gateway.CreateStore(request, timeout=5))
    lacking = await refusal_of(
        scene.gateway.CreateStore(request, timeout=5, metadata=key_metadata("stores:read"))
    )
    made = await scene.gateway.CreateStore(
        request, timeout=5, metadata=key_metadata("stores:write")
    )

    assert without.reason == lacking.reason == "SCOPE_MISSING"
    assert made.store.uid
