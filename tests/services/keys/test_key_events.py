"""The trail of who did what: complete, in order, readable by store, and sealed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Delete, Update, delete, select, update
from sqlalchemy.exc import OperationalError

from common.db import Database, open_database
from common.network import network_of
from deploy.local.mariadb import MariadbServer
from services.keys.tables import key_event_heads, key_events
from shoptrail.keys.v1 import key_event_pb2
from shoptrail.keys.v1 import keys_pb2 as pb
from shoptrail.maintenance.v1 import maintenance_pb2
from tests.conftest import key_metadata
from tests.services.keys.conftest import NOBODY, Scene, new_key, new_store, refusal_of

REFUSED = key_event_pb2.KEY_EVENT_OUTCOME_REFUSED


async def events_of(scene: Scene, store_uid: str) -> list[key_event_pb2.KeyEvent]:
    """What was done to the store, in order."""
    request = pb.ListKeyEventsRequest(store_uid=store_uid)
    return list((await scene.operator.ListKeyEvents(request, timeout=5)).events)[::-1]


def action_of(event: key_event_pb2.KeyEvent) -> str:
    return key_event_pb2.KeyEventAction.Name(event.action).removeprefix("KEY_EVENT_ACTION_")


async def verify(scene: Scene, **fields: Any) -> pb.VerifyAuditResponse:
    return await scene.operator.VerifyAudit(pb.VerifyAuditRequest(**fields), timeout=5)


async def test_everything_that_is_done_to_a_store_is_on_record(scene: Scene) -> None:
    store = await new_store(scene)
    key = (await new_key(scene, store)).key
    aim: dict[str, Any] = {"store_uid": store.uid, "key_uid": key.uid}
    metadata = (
        *key_metadata("keys:write", *key.scopes, store_uid=store.uid),
        ("x-request-id", "req-7"),
        ("x-client-network", network_of("203.0.113.77")),
    )
    rotated = await scene.gateway.RotateKey(
        pb.RotateKeyRequest(**aim), timeout=5, metadata=metadata
    )
    await scene.operator.UpdateKey(pb.UpdateKeyRequest(**aim, display_name="New"), timeout=5)
    await scene.operator.DeleteKey(pb.DeleteKeyRequest(**aim), timeout=5)
    await scene.operator.UndeleteKey(pb.UndeleteKeyRequest(**aim), timeout=5)
    await scene.operator.RevokeKey(pb.RevokeKeyRequest(**aim), timeout=5)
    await scene.operator.UpdateStore(
        pb.UpdateStoreRequest(store_uid=store.uid, display_name="Coffee"), timeout=5
    )
    await scene.operator.DeleteStore(pb.DeleteStoreRequest(store_uid=store.uid), timeout=5)
    await scene.operator.UndeleteStore(pb.UndeleteStoreRequest(store_uid=store.uid), timeout=5)

    events = await events_of(scene, store.uid)

    assert [action_of(event) for event in events] == [
        "CREATE_STORE",
        "CREATE_KEY",
        "ROTATE_KEY",
        "CREATE_KEY",
        "UPDATE_KEY",
        "DELETE_KEY",
        "UNDELETE_KEY",
        "REVOKE_KEY",
        "UPDATE_STORE",
        "DELETE_STORE",
        "UNDELETE_STORE",
    ]
    assert [event.position for event in events] == list(range(1, 12))
    rotation = events[2]
    assert rotation.actor == "gateway key_00000000000000000000000001"
    assert rotation.request_id == "req-7"
    assert rotation.client_network == "203.0.113.0/24"
    assert (rotation.key_uid, rotation.detail) == (key.uid, rotated.key.uid)
    assert events[0].actor == "operator"
    assert await verify(scene) == pb.VerifyAuditResponse(
        intact=True, position=11, hash=events[-1].hash, done=True
    )


async def test_what_changes_nothing_is_not_on_record_and_what_is_refused_is(
    scene: Scene,
) -> None:
    store = await new_store(scene)
    key = (await new_key(scene, store)).key
    for _ in range(2):
        await scene.operator.RevokeKey(
            pb.RevokeKeyRequest(store_uid=store.uid, key_uid=key.uid), timeout=5
        )
    await refusal_of(
        scene.operator.RotateKey(
            pb.RotateKeyRequest(store_uid=store.uid, key_uid=key.uid), timeout=5
        )
    )
    await refusal_of(
        scene.operator.RevokeKey(
            pb.RevokeKeyRequest(store_uid=store.uid, key_uid="x" * 1000), timeout=5
        )
    )

    events = await events_of(scene, store.uid)

    assert [action_of(event) for event in events] == [
        "CREATE_STORE",
        "CREATE_KEY",
        "REVOKE_KEY",
        "ROTATE_KEY",
        "REVOKE_KEY",
    ]
    assert [event.outcome == REFUSED for event in events] == [False, False, False, True, True]
    assert [event.detail for event in events[3:]] == ["WRONG_STATE", "NOT_FOUND"]
    assert events[4].key_uid == ""


async def test_jobs_are_on_record_under_their_names(scene: Scene) -> None:
    scene.clock.time -= timedelta(days=31)
    store, purged = await new_store(scene), await new_store(scene)
    await new_key(scene, store, expire_time=scene.clock.time + timedelta(hours=1))
    await scene.operator.DeleteStore(pb.DeleteStoreRequest(store_uid=purged.uid), timeout=5)

    for job in ("expire-keys", "purge-deleted"):
        await scene.cron.RunCron(maintenance_pb2.RunCronRequest(job=job), timeout=30)

    last_of_store = (await events_of(scene, store.uid))[-1]
    last_of_purged = (await events_of(scene, purged.uid))[-1]
    assert (action_of(last_of_store), last_of_store.actor) == ("EXPIRE_KEY", "expire-keys")
    assert (action_of(last_of_purged), last_of_purged.actor) == ("PURGE_STORE", "purge-deleted")


async def test_who_keeps_something_of_stores_is_told_which_were_purged(scene: Scene) -> None:
    scene.clock.time -= timedelta(days=31)
    stores = [await new_store(scene) for _ in range(3)]
    for store in stores[:2]:
        await scene.operator.DeleteStore(pb.DeleteStoreRequest(store_uid=store.uid), timeout=5)
    before = await scene.ingest.ListPurgedStores(pb.ListPurgedStoresRequest(), timeout=5)
    await scene.cron.RunCron(maintenance_pb2.RunCronRequest(job="purge-deleted"), timeout=30)

    found = await scene.ingest.ListPurgedStores(pb.ListPurgedStoresRequest(), timeout=5)
    after = pb.ListPurgedStoresRequest(after_position=found.stores[0].position)
    later = await scene.ingest.ListPurgedStores(after, timeout=5)
    refused = await refusal_of(
        scene.ingest.ListPurgedStores(pb.ListPurgedStoresRequest(after_position=-1), timeout=5)
    )

    assert not before.stores
    assert {one.store_uid for one in found.stores} == {store.uid for store in stores[:2]}
    assert list(later.stores) == list(found.stores)[1:]
    assert refused.fields == {"after_position"}


async def test_an_exposed_key_is_flagged_and_on_record_once_an_hour(scene: Scene) -> None:
    store = await new_store(scene)
    key = (await new_key(scene, store)).key

    async def expose(minutes: int) -> None:
        scene.clock.time += timedelta(minutes=minutes)
        use = pb.KeyUse(key_uid=key.uid, origin="shop.example")
        use.expose_time.FromDatetime(scene.clock.time)
        await scene.gateway.ReportKeyUse(pb.ReportKeyUseRequest(uses=[use]), timeout=5)

    for minutes in (0, 1, 1):
        await expose(minutes)
    soon = await events_of(scene, store.uid)
    await expose(61)
    later = await events_of(scene, store.uid)

    read = await scene.operator.GetKey(
        pb.GetKeyRequest(store_uid=store.uid, key_uid=key.uid), timeout=5
    )
    assert [action_of(event) for event in soon[2:]] == ["EXPOSE_KEY"]
    assert [action_of(event) for event in later[2:]] == ["EXPOSE_KEY"] * 2
    assert (soon[2].outcome, soon[2].detail) == (REFUSED, "shop.example")
    assert read.key.exposed_time.ToDatetime(scene.clock.time.tzinfo) == scene.clock.time
    assert not read.key.HasField("last_used_time")


async def test_a_store_reads_its_own_trail_only_page_by_page(scene: Scene) -> None:
    own, other = await new_store(scene), await new_store(scene)
    for store in (own, other, own):
        await new_key(scene, store)
    caller = key_metadata("keys:read", store_uid=own.uid)
    request = pb.ListKeyEventsRequest(store_uid=own.uid, page_size=2)

    first = await scene.gateway.ListKeyEvents(request, timeout=5, metadata=caller)
    request.page_token = first.next_page_token
    second = await scene.gateway.ListKeyEvents(request, timeout=5, metadata=caller)
    of_other = pb.ListKeyEventsRequest(store_uid=other.uid)
    of_none = pb.ListKeyEventsRequest(store_uid=f"sto_{NOBODY}")

    assert [event.position for event in [*first.events, *second.events]] == [5, 3, 1]
    assert second.next_page_token == ""
    refusal = await refusal_of(scene.gateway.ListKeyEvents(of_other, timeout=5, metadata=caller))
    assert refusal.reason == "WRONG_STORE"
    assert not (await scene.operator.ListKeyEvents(of_none, timeout=5)).events
    assert (
        await refusal_of(
            scene.operator.ListKeyEvents(pb.ListKeyEventsRequest(store_uid="sto_x"), timeout=5)
        )
    ).reason == "NOT_FOUND"


async def test_changes_at_the_same_time_follow_one_another_in_the_trail(scene: Scene) -> None:
    store = await new_store(scene)

    await asyncio.gather(*(new_key(scene, store) for _ in range(12)))

    checked = await verify(scene)
    assert (checked.intact, checked.position, checked.done) == (True, 13, True)


@pytest.mark.parametrize(
    ("position", "damage"), [(1, "altered"), (3, "removed"), (3, "moved"), (5, "removed")]
)
async def test_an_entry_that_was_removed_or_altered_is_found(
    scene: Scene, intruder: Database, position: int, damage: str
) -> None:
    store = await new_store(scene)
    for _ in range(4):
        await new_key(scene, store)
    at = key_events.c.position == position
    async with intruder.begin() as transaction:
        if damage == "removed":
            await transaction.execute(delete(key_events).where(at))
        elif damage == "altered":
            await transaction.execute(update(key_events).where(at).values(actor="gateway"))
        else:
            await transaction.execute(update(key_events).where(at).values(position=position + 90))

    checked = await verify(scene)

    assert (checked.intact, checked.broken_position) == (False, position)


async def test_a_trail_made_up_anew_does_not_lead_to_a_hash_that_was_noted(
    scene: Scene, intruder: Database
) -> None:
    await new_store(scene)
    noted = await verify(scene)
    async with intruder.begin() as transaction:
        await transaction.execute(delete(key_events))
        await transaction.execute(delete(key_event_heads))
    await new_store(scene)
    await new_store(scene)

    anew = await verify(scene)
    compared = await verify(scene, after_position=noted.position, after_hash=noted.hash)

    assert anew.intact
    assert (compared.intact, compared.broken_position) == (False, noted.position)


@pytest.mark.parametrize("statement", [delete(key_events), update(key_events).values(actor="me")])
async def test_keys_itself_can_only_add_to_the_trail(
    mariadb_server: MariadbServer, statement: Delete | Update
) -> None:
    database = open_database(mariadb_server.url("keys"))
    with pytest.raises(OperationalError, match="denied"):
        async with database.begin() as transaction:
            await transaction.execute(statement)
    await database.dispose()


async def test_the_trail_is_checked_in_stretches(scene: Scene) -> None:
    for _ in range(3):
        await new_store(scene)
    async with scene.database.read() as snapshot:
        hashes = (
            await snapshot.scalars(select(key_events.c.hash).order_by(key_events.c.position))
        ).all()

    rest = await verify(scene, after_position=2, after_hash=hashes[1])
    nothing = await verify(scene, after_position=3)
    beyond = await verify(scene, after_position=4)
    empty_hash = await refusal_of(verify(scene, after_position=-1, after_hash=b"short"))

    assert rest == pb.VerifyAuditResponse(intact=True, position=3, hash=hashes[2], done=True)
    assert nothing == rest
    assert (beyond.intact, beyond.broken_position) == (False, 4)
    assert empty_hash.fields == {"after_position", "after_hash"}


async def test_only_an_operators_key_checks_the_trail(scene: Scene) -> None:
    request = pb.VerifyAuditRequest()
    store = await new_store(scene)

    of_store = await refusal_of(
        scene.gateway.VerifyAudit(
            request, timeout=5, metadata=key_metadata("keys:read", store_uid=store.uid)
        )
    )
    checked = await scene.gateway.VerifyAudit(
        request, timeout=5, metadata=key_metadata("audit:read")
    )

    assert of_store.metadata == {"scope": "audit:read"}
    assert checked.intact


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("shop.example", ""),
        ("", ""),
    ],
)
def test_of_an_address_only_its_network_is_kept(address: str, network: str) -> None:
    assert network_of(address) == network
