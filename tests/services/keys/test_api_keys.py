"""A key's life, through Keys' own RPCs, and what is kept of it."""

from __future__ import annotations

from datetime import UTC, timedelta

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import select

from services.keys.key_text import Kind, new_key_text
from services.keys.peppers import Pepper
from services.keys.tables import api_keys, metadata
from shoptrail.keys.v1 import api_key_pb2, key_event_pb2
from shoptrail.keys.v1 import keys_pb2 as pb
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
CRON = api_key_pb2.KEY_KIND_CRON

OF_A_STORE = [
    "events:write",
    "events:read",
    "reports:read",
    "keys:read",
    "keys:write",
    "stores:read",
    "settings:read",
    "settings:write",
]


async def test_a_key_is_made_verified_listed_and_revoked(scene: Scene) -> None:
    store = await new_store(scene)
    created = await new_key(scene, store)
    key, text = created.key, created.text
    verify = pb.VerifyKeyRequest(text=text)
    revoke = pb.RevokeKeyRequest(store_uid=store.uid, key_uid=key.uid)

    verified = await scene.gateway.VerifyKey(verify, timeout=5)
    listed = await scene.operator.ListKeys(pb.ListKeysRequest(store_uid=store.uid), timeout=5)
    revoked = await scene.operator.RevokeKey(revoke, timeout=5)
    ended = await scene.gateway.VerifyKey(verify, timeout=5)
    still_listed = await scene.operator.ListKeys(pb.ListKeysRequest(store_uid=store.uid), timeout=5)

    assert text.startswith("sk_live_")
    assert key.uid.startswith("key_")
    assert key.store_uid == store.uid
    assert key.display_name == "Laptop"
    assert key.hint == f"{text[:12]}…{text[-4:]}"
    assert verified.key == key
    assert verified.remember.ToTimedelta() == timedelta(seconds=10)
    assert list(listed.keys) == [key]
    assert revoked.key.revoke_time.ToDatetime(tzinfo=UTC) == scene.clock.time
    assert not ended.HasField("key")
    assert list(still_listed.keys) == [revoked.key]


async def test_revoking_again_changes_nothing(scene: Scene) -> None:
    store = await new_store(scene)
    key = (await new_key(scene, store)).key
    revoke = pb.RevokeKeyRequest(store_uid=store.uid, key_uid=key.uid)

    first = await scene.operator.RevokeKey(revoke, timeout=5)
    scene.clock.time += timedelta(days=1)
    second = await scene.operator.RevokeKey(revoke, timeout=5)

    assert first == second


async def test_the_text_of_a_key_is_nowhere_in_the_database(scene: Scene) -> None:
    store = await new_store(scene)
    created = await new_key(scene, store)
    text = created.text

    async with scene.database.read() as snapshot:
        rows = [
            repr(row)
            for table in metadata.sorted_tables
            for row in await snapshot.execute(select(table))
        ]
        row = (await snapshot.execute(select(api_keys))).one()

    assert rows
    for hidden in (text, text[8:], text[12:-4], text[8:-6]):
        assert not any(hidden in row for row in rows)
    assert row.hash == scene.peppers[0].hash(text)
    assert row.pepper_version == 1
    assert row.hint == created.key.hint


async def test_all_keys_that_do_not_work_get_the_same_answer(scene: Scene) -> None:
    store, deleted_store = await new_store(scene, "Open"), await new_store(scene, "Closed")
    working = (await new_key(scene, store)).text
    revoked = await new_key(scene, store)
    expired = await new_key(scene, store, expire_time=scene.clock.time + timedelta(hours=1))
    of_deleted_store = await new_key(scene, deleted_store)
    await scene.operator.RevokeKey(
        pb.RevokeKeyRequest(store_uid=store.uid, key_uid=revoked.key.uid), timeout=5
    )
    await scene.operator.DeleteStore(pb.DeleteStoreRequest(store_uid=deleted_store.uid), timeout=5)
    scene.clock.time += timedelta(hours=1)

    answers = [
        await scene.gateway.VerifyKey(pb.VerifyKeyRequest(text=text), timeout=5)
        for text in (
            new_key_text(Kind.SECRET, test=False),
            revoked.text,
            expired.text,
            of_deleted_store.text,
            working[:-1] + ("A" if working[-1] != "A" else "B"),
            working + " ",
            "",
            "é" * 100_000,
        )
    ]

    assert await works(scene, working)
    assert all(answer == answers[0] for answer in answers)
    assert not answers[0].HasField("key")


async def test_keys_of_a_restored_store_work_again(scene: Scene) -> None:
    store = await new_store(scene)
    text = (await new_key(scene, store)).text
    await scene.operator.DeleteStore(pb.DeleteStoreRequest(store_uid=store.uid), timeout=5)
    assert not await works(scene, text)

    await scene.operator.UndeleteStore(pb.UndeleteStoreRequest(store_uid=store.uid), timeout=5)

    assert await works(scene, text)


async def test_a_key_works_until_its_expire_time(scene: Scene) -> None:
    store = await new_store(scene)
    expire_time = scene.clock.time + timedelta(hours=1)
    created = await new_key(scene, store, expire_time=expire_time)

    scene.clock.time = expire_time - timedelta(microseconds=1)
    before = await works(scene, created.text)
    scene.clock.time = expire_time
    after = await works(scene, created.text)

    assert created.key.expire_time.ToDatetime(tzinfo=UTC) == expire_time
    assert (before, after) == (True, False)


async def test_revoking_an_expired_key_says_that_it_ended_when_it_expired(scene: Scene) -> None:
    store = await new_store(scene)
    expire_time = scene.clock.time + timedelta(hours=1)
    key = (await new_key(scene, store, expire_time=expire_time)).key
    scene.clock.time += timedelta(days=1)

    revoked = await scene.operator.RevokeKey(
        pb.RevokeKeyRequest(store_uid=store.uid, key_uid=key.uid), timeout=5
    )

    assert revoked.key.revoke_time == key.expire_time


async def test_keys_under_a_former_pepper_work_until_it_is_taken_away(scene: Scene) -> None:
    store = await new_store(scene)
    old = (await new_key(scene, store)).text

    scene.peppers.insert(0, Pepper(version=2, secret=b"2" * 32))
    new = (await new_key(scene, store)).text
    both = [await works(scene, old), await works(scene, new)]
    async with scene.database.read() as snapshot:
        versions = (await snapshot.scalars(select(api_keys.c.pepper_version))).all()
    del scene.peppers[1]
    without_former = [await works(scene, old), await works(scene, new)]

    assert both == [True, True]
    assert sorted(versions) == [1, 2]
    assert without_former == [False, True]


@pytest.mark.parametrize(
    ("kind", "has_store", "scopes"),
    [
        (PUBLISHABLE, True, ["events:write"]),
        (SECRET, True, OF_A_STORE),
        (SECRET, False, OF_A_STORE),
        (CRON, False, ["cron:run"]),
    ],
)
async def test_a_key_gets_the_scopes_of_its_kind_if_none_are_named(
    scene: Scene, kind: api_key_pb2.KeyKind.ValueType, has_store: bool, scopes: list[str]
) -> None:
    store = await new_store(scene) if has_store else None

    created = await new_key(scene, store, kind, test=True)

    assert list(created.key.scopes) == scopes
    assert created.text[1:8] == "k_test_"
    assert await works(scene, created.text)


async def test_an_operators_key_can_have_all_scopes(scene: Scene) -> None:
    scopes = ["cron:run", "stores:write", "stores:read", "stores:read"]
    request = pb.CreateKeyRequest(kind=SECRET, scopes=scopes)

    created = await scene.operator.CreateKey(request, timeout=5)

    assert sorted(created.key.scopes) == ["cron:run", "stores:read", "stores:write"]
    assert created.key.store_uid == ""


@pytest.mark.parametrize(
    ("kind", "has_store", "scopes", "fields"),
    [
        (PUBLISHABLE, True, ["events:write", "events:read"], {"scopes[1]"}),
        (PUBLISHABLE, False, [], {"store_uid"}),
        (SECRET, True, ["stores:write", "events:read", "cron:run"], {"scopes[0]", "scopes[2]"}),
        (SECRET, True, ["events:fly"], {"scopes[0]"}),
        (SECRET, True, [""], {"scopes[0]"}),
        (CRON, True, [], {"store_uid"}),
        (CRON, False, ["events:read"], {"scopes[0]"}),
        (api_key_pb2.KEY_KIND_UNSPECIFIED, True, [], {"kind"}),
        (99, True, [], {"kind"}),
    ],
)
async def test_kind_store_and_scopes_must_fit_one_another(
    scene: Scene,
    kind: api_key_pb2.KeyKind.ValueType,
    has_store: bool,
    scopes: list[str],
    fields: set[str],
) -> None:
    store_uid = (await new_store(scene)).uid if has_store else ""
    request = pb.CreateKeyRequest(store_uid=store_uid, kind=kind, scopes=scopes)

    refusal = await refusal_of(scene.operator.CreateKey(request, timeout=5))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == fields


@pytest.mark.parametrize(
    "expire_time", [Timestamp(seconds=1), Timestamp(seconds=10**15), Timestamp(nanos=-1)]
)
async def test_everything_that_is_wrong_is_named_at_once(
    scene: Scene, expire_time: Timestamp
) -> None:
    request = pb.CreateKeyRequest(
        store_uid=f"sto_{NOBODY}",
        kind=CRON,
        display_name="x" * 256,
        scopes=["events:read"],
        expire_time=expire_time,
    )

    refusal = await refusal_of(scene.operator.CreateKey(request, timeout=5))

    assert refusal.fields == {"store_uid", "display_name", "scopes[0]", "expire_time"}


async def test_a_key_cannot_expire_at_the_moment_it_is_made(scene: Scene) -> None:
    request = pb.CreateKeyRequest(kind=CRON)
    request.expire_time.FromDatetime(scene.clock.time)

    refusal = await refusal_of(scene.operator.CreateKey(request, timeout=5))

    assert refusal.fields == {"expire_time"}


async def test_a_store_that_is_deleted_or_unknown_gets_no_keys(scene: Scene) -> None:
    deleted = await new_store(scene)
    await scene.operator.DeleteStore(pb.DeleteStoreRequest(store_uid=deleted.uid), timeout=5)

    for uid in (deleted.uid, f"sto_{NOBODY}", "nonsense"):
        request = pb.CreateKeyRequest(store_uid=uid, kind=SECRET)
        refusal = await refusal_of(scene.operator.CreateKey(request, timeout=5))
        assert refusal.code is grpc.StatusCode.NOT_FOUND
        assert refusal.metadata == {"uid": uid}


async def test_a_key_gives_only_scopes_that_it_has(scene: Scene) -> None:
    store = await new_store(scene)
    caller = key_metadata("keys:write", "events:read", store_uid=store.uid)

    async def create(*scopes: str) -> pb.CreateKeyResponse:
        request = pb.CreateKeyRequest(store_uid=store.uid, kind=SECRET, scopes=scopes)
        return await scene.gateway.CreateKey(request, timeout=5, metadata=caller)

    given = await create("events:read")
    more = await refusal_of(create("events:read", "events:write"))
    by_default = await refusal_of(create())

    assert list(given.key.scopes) == ["events:read"]
    assert (more.code, more.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
    assert more.metadata == {"scope": "events:write"}
    assert by_default.reason == "SCOPE_MISSING"


async def test_a_key_of_a_store_makes_no_key_for_all_stores(scene: Scene) -> None:
    store = await new_store(scene)
    of_a_store = key_metadata(*OF_A_STORE, store_uid=store.uid)
    of_no_store = key_metadata(*OF_A_STORE)
    request = pb.CreateKeyRequest(kind=SECRET)

    refusal = await refusal_of(scene.gateway.CreateKey(request, timeout=5, metadata=of_a_store))
    created = await scene.gateway.CreateKey(request, timeout=5, metadata=of_no_store)

    assert refusal.reason == "WRONG_STORE"
    assert created.key.store_uid == ""


async def test_only_a_key_that_runs_cron_makes_cron_keys(scene: Scene) -> None:
    request = pb.CreateKeyRequest(kind=CRON)

    refusal = await refusal_of(
        scene.gateway.CreateKey(request, timeout=5, metadata=key_metadata("keys:write"))
    )
    created = await scene.gateway.CreateKey(
        request, timeout=5, metadata=key_metadata("keys:write", "cron:run")
    )

    assert refusal.metadata == {"scope": "cron:run"}
    assert created.text.startswith("ck_live_")


async def test_a_key_is_found_under_its_own_store_only(scene: Scene) -> None:
    own, other = await new_store(scene, "Own"), await new_store(scene, "Other")
    key = (await new_key(scene, own)).key
    caller = key_metadata("keys:write", store_uid=other.uid)

    for store_uid, key_uid in (
        (other.uid, key.uid),
        (other.uid, f"key_{NOBODY}"),
        (other.uid, "x" * 100_000),
    ):
        request = pb.RevokeKeyRequest(store_uid=store_uid, key_uid=key_uid)
        refusal = await refusal_of(scene.gateway.RevokeKey(request, timeout=5, metadata=caller))
        assert refusal.code is grpc.StatusCode.NOT_FOUND
        assert refusal.metadata == {"uid": key_uid[:64]}


async def test_keys_of_no_store_are_listed_and_revoked_without_one(scene: Scene) -> None:
    await new_key(scene, await new_store(scene))
    cron = await new_key(scene, None, CRON)

    listed = await scene.operator.ListKeys(pb.ListKeysRequest(), timeout=5)
    await scene.operator.RevokeKey(pb.RevokeKeyRequest(key_uid=cron.key.uid), timeout=5)

    assert list(listed.keys) == [cron.key]
    assert not await works(scene, cron.text)


async def test_pages_hold_every_key_of_the_store_once(scene: Scene) -> None:
    store, other = await new_store(scene), await new_store(scene)
    made = []
    for _ in range(4):
        made.append((await new_key(scene, store, PUBLISHABLE)).key)
        await new_key(scene, other, PUBLISHABLE)
    request = pb.ListKeysRequest(store_uid=store.uid, page_size=2)

    first = await scene.operator.ListKeys(request, timeout=5)
    request.page_token = first.next_page_token
    second = await scene.operator.ListKeys(request, timeout=5)
    request.store_uid = other.uid
    refusal = await refusal_of(scene.operator.ListKeys(request, timeout=5))

    assert [*first.keys, *second.keys] == made[::-1]
    assert second.next_page_token == ""
    assert refusal.reason == "PAGE_TOKEN_NOT_VALID"


async def test_the_keys_of_an_unknown_store_are_not_found(scene: Scene) -> None:
    refusal = await refusal_of(
        scene.operator.ListKeys(pb.ListKeysRequest(store_uid=f"sto_{NOBODY}"), timeout=5)
    )

    assert refusal.code is grpc.StatusCode.NOT_FOUND


async def test_only_the_gateway_verifies_keys(scene: Scene) -> None:
    refusal = await refusal_of(scene.operator.VerifyKey(pb.VerifyKeyRequest(text="x"), timeout=5))

    assert refusal.reason == "CALLER_NOT_ALLOWED"


async def test_the_text_of_a_key_is_not_logged(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")

    created = await new_key(scene, await new_store(scene))
    await works(scene, created.text)

    assert caplog.records
    assert not any(created.text[12:-4] in repr(record.__dict__) for record in caplog.records)


async def test_a_key_is_verified_by_its_uid_while_it_works(scene: Scene) -> None:
    store = await new_store(scene)
    created = await new_key(scene, store)
    by_uid = pb.VerifyKeyRequest(key_uid=created.key.uid)

    by_text = await scene.gateway.VerifyKey(pb.VerifyKeyRequest(text=created.text), timeout=5)
    assert await scene.gateway.VerifyKey(by_uid, timeout=5) == by_text
    for unknown in (f"key_{NOBODY}", "key", store.uid):
        answer = await scene.gateway.VerifyKey(pb.VerifyKeyRequest(key_uid=unknown), timeout=5)
        assert not answer.HasField("key")

    revoke = pb.RevokeKeyRequest(store_uid=store.uid, key_uid=created.key.uid)
    await scene.operator.RevokeKey(revoke, timeout=5)
    assert not (await scene.gateway.VerifyKey(by_uid, timeout=5)).HasField("key")


async def test_ending_the_sessions_of_a_key_is_counted_and_on_record(scene: Scene) -> None:
    store = await new_store(scene)
    created, other = await new_key(scene, store), await new_key(scene, store)
    end = pb.EndSessionsRequest(key_uid=created.key.uid)

    for ended in (1, 2):
        await scene.gateway.EndSessions(end, timeout=5)
        verify = pb.VerifyKeyRequest(key_uid=created.key.uid)
        assert (await scene.gateway.VerifyKey(verify, timeout=5)).session_epoch == ended

    untouched = await scene.gateway.VerifyKey(pb.VerifyKeyRequest(text=other.text), timeout=5)
    assert untouched.session_epoch == 0
    trail = await scene.operator.ListKeyEvents(
        pb.ListKeyEventsRequest(store_uid=store.uid), timeout=5
    )
    actions = [(event.action, event.key_uid) for event in trail.events[:2]]
    assert actions == [(key_event_pb2.KEY_EVENT_ACTION_END_SESSIONS, created.key.uid)] * 2
    refusal = await refusal_of(
        scene.gateway.EndSessions(pb.EndSessionsRequest(key_uid=f"key_{NOBODY}"), timeout=5)
    )
    assert refusal.reason == "NOT_FOUND"
