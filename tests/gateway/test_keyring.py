"""How the gateway remembers keys, seen by those who send events with them."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from common.errors import DependencyUnavailable
from shoptrail.keys.v1 import keys_pb2
from tests.gateway.conftest import WRITE_KEY, Clock, Mesh, Running


async def send(gateway: Running, key: str = WRITE_KEY) -> int:
    """The status of an event that is sent with the key."""
    response = await gateway.http.post(
        "/v1/track", headers={"Authorization": f"Bearer {key}"}, json={"event": "Viewed"}
    )
    return response.status_code


async def test_a_key_is_asked_for_once_while_it_is_remembered(
    gateway: Running, mesh: Mesh, clock: Clock
) -> None:
    assert [await send(gateway) for _ in range(3)] == [200, 200, 200]
    assert len(mesh.keys.requests("VerifyKey")) == 1

    clock.move_on(11)
    assert await send(gateway) == 200
    assert len(mesh.keys.requests("VerifyKey")) == 2


async def test_requests_that_come_together_ask_once(gateway: Running, mesh: Mesh) -> None:
    asked, answered = asyncio.Event(), asyncio.Event()

    async def verify_late(request: keys_pb2.VerifyKeyRequest) -> keys_pb2.VerifyKeyResponse:
        asked.set()
        await answered.wait()
        return await mesh.verify_key(request)

    mesh.keys.answers["VerifyKey"] = verify_late
    sending = [asyncio.create_task(send(gateway)) for _ in range(20)]
    await asked.wait()
    answered.set()

    assert await asyncio.gather(*sending) == [200] * 20
    assert len(mesh.keys.requests("VerifyKey")) == 1


async def test_a_revoked_key_stops_when_it_is_asked_for_again(
    gateway: Running, mesh: Mesh, clock: Clock
) -> None:
    assert await send(gateway) == 200
    del mesh.keys_by_text[WRITE_KEY]
    clock.move_on(11)

    assert await send(gateway) == 401


async def test_a_key_that_does_not_work_is_remembered_for_ten_seconds(
    gateway: Running, mesh: Mesh, clock: Clock
) -> None:
    assert [await send(gateway, "pk_test_new") for _ in range(3)] == [401, 401, 401]
    assert len(mesh.keys.requests("VerifyKey")) == 1

    mesh.keys_by_text["pk_test_new"] = mesh.keys_by_text[WRITE_KEY]
    clock.move_on(11)
    assert await send(gateway, "pk_test_new") == 200


async def test_a_remembered_key_stops_at_its_expire_time(
    gateway: Running, mesh: Mesh, clock: Clock
) -> None:
    expires = clock.now() + timedelta(seconds=5)
    mesh.keys_by_text[WRITE_KEY].expire_time.FromDatetime(expires)
    assert await send(gateway) == 200

    clock.move_on(6)
    assert await send(gateway) == 401


async def test_while_keys_is_down_known_keys_go_on_for_a_bounded_time(
    gateway: Running, mesh: Mesh, clock: Clock
) -> None:
    assert await send(gateway) == 200
    await mesh.stop("keys")

    for _ in range(2):
        clock.move_on(140)
        assert await send(gateway) == 200
    clock.move_on(21)
    assert await send(gateway) == 503


async def test_while_keys_is_down_unknown_keys_are_not_called_invalid(
    gateway: Running, mesh: Mesh
) -> None:
    await mesh.stop("keys")

    response = await gateway.http.post("/v1/track", json={"event": "A", "writeKey": WRITE_KEY})

    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    response = await gateway.http.get(
        "/v1/stores", headers={"Authorization": f"Bearer {WRITE_KEY}"}
    )
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")


async def test_a_keys_service_that_has_trouble_is_left_alone_for_a_second(
    gateway: Running, mesh: Mesh, clock: Clock
) -> None:
    failed = asyncio.Event()

    async def fail(request: keys_pb2.VerifyKeyRequest) -> keys_pb2.VerifyKeyResponse:
        failed.set()
        raise DependencyUnavailable

    assert await send(gateway) == 200
    mesh.keys.answers["VerifyKey"] = fail
    clock.move_on(11)
    assert await send(gateway) == 200
    asked = len(mesh.keys.requests("VerifyKey"))

    assert [await send(gateway) for _ in range(5)] == [200] * 5
    assert len(mesh.keys.requests("VerifyKey")) == asked
    failed.clear()
    clock.move_on(2)
    assert await send(gateway) == 200
    await asyncio.wait_for(failed.wait(), 10)
    assert len(mesh.keys.requests("VerifyKey")) > asked


async def test_only_the_first_request_waits_for_a_keys_service_that_is_silent(
    gateway: Running, mesh: Mesh, clock: Clock
) -> None:
    async def say_nothing(request: keys_pb2.VerifyKeyRequest) -> keys_pb2.VerifyKeyResponse:
        await asyncio.Event().wait()
        raise AssertionError

    assert await send(gateway) == 200
    mesh.keys.answers["VerifyKey"] = say_nothing
    clock.move_on(11)
    assert await send(gateway) == 200

    waits = []
    for _ in range(3):
        clock.move_on(2)
        began = time.monotonic()
        assert await send(gateway) == 200
        waits.append(time.monotonic() - began)

    # Keys is given half a second to answer.
    assert min(waits) < 0.5


async def test_a_key_that_is_not_known_yet_is_waited_for_longer_than_one_that_is(
    gateway: Running, mesh: Mesh
) -> None:
    async def verify_slowly(request: keys_pb2.VerifyKeyRequest) -> keys_pb2.VerifyKeyResponse:
        # As after a proxy's 1.5 s for a replica that hangs: more than a known key's 0.5 s.
        await asyncio.sleep(1.6)
        return await mesh.verify_key(request)

    mesh.keys.answers["VerifyKey"] = verify_slowly

    assert await asyncio.gather(*(send(gateway) for _ in range(5))) == [200] * 5
    assert len(mesh.keys.requests("VerifyKey")) == 1


async def test_a_key_that_was_revoked_while_keys_was_down_stops_when_it_is_back(
    gateway: Running, mesh: Mesh, clock: Clock
) -> None:
    async def fail(request: keys_pb2.VerifyKeyRequest) -> keys_pb2.VerifyKeyResponse:
        raise DependencyUnavailable

    assert await send(gateway) == 200
    mesh.keys.answers["VerifyKey"] = fail
    clock.move_on(11)
    assert await send(gateway) == 200

    mesh.keys.answers["VerifyKey"] = mesh.verify_key
    del mesh.keys_by_text[WRITE_KEY]
    clock.move_on(2)
    async with asyncio.timeout(10):
        while await send(gateway) != 401:
            pass
