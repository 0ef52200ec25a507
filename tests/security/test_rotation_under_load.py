"""Keys are rotated and revoked while two gateways serve: nothing is lost, nothing lives on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

import httpx

from shoptrail.keys.v1 import api_key_pb2, keys_pb2
from tests.security.conftest import Town

OVERLAP = timedelta(hours=1)
KINDS = (api_key_pb2.KEY_KIND_PUBLISHABLE, api_key_pb2.KEY_KIND_SECRET)


@dataclass
class Sender:
    """Sends events without a pause, each once, with the key that it was given last."""

    name: str
    gateway: httpx.AsyncClient
    text: str
    statuses: list[int] = field(default_factory=list)
    answered: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def send_on(self) -> None:
        while True:
            response = await self.gateway.post(
                "/v1/track",
                json={"event": "Viewed", "messageId": f"{self.name} {len(self.statuses)}"},
                headers={"Authorization": f"Bearer {self.text}"},
            )
            async with self.answered:
                self.statuses.append(response.status_code)
                self.answered.notify_all()

    async def send_more(self) -> None:
        """Return when two more events were answered, so one was sent from now on."""
        seen = len(self.statuses)
        async with self.answered:
            await self.answered.wait_for(lambda: len(self.statuses) >= seen + 2)


async def rotate(
    town: Town, key: api_key_pb2.ApiKey, overlap: timedelta = OVERLAP
) -> keys_pb2.RotateKeyResponse:
    request = keys_pb2.RotateKeyRequest(store_uid=key.store_uid, key_uid=key.uid)
    request.overlap.FromTimedelta(overlap)
    return await town.operator.RotateKey(request, timeout=5)


async def test_no_event_is_lost_while_every_key_is_rotated_twice(town: Town) -> None:
    store_uid = await town.new_store()
    keys = [await town.new_key(store_uid, kind) for kind in KINDS]
    senders = [
        [
            Sender(f"{number}-{place}", gateway, created.text)
            for place, gateway in enumerate(town.gateways)
        ]
        for number, created in enumerate(keys)
    ]
    everyone = [sender for of_key in senders for sender in of_key]
    sending = [asyncio.create_task(sender.send_on()) for sender in everyone]
    current = [(created.key, created.text) for created in keys]
    ended: list[str] = []

    for _ in range(2):
        for number, (key, old_text) in enumerate(current):
            rotated = await rotate(town, key)
            for sender in senders[number]:
                await sender.send_more()  # With the old key, during the overlap.
                sender.text = rotated.text
                await sender.send_more()
            assert await town.statuses(old_text) == [200, 200]
            current[number] = (rotated.key, rotated.text)
            ended.append(old_text)
        town.clock.ahead += OVERLAP
        for old_text in ended:  # A gateway may still have to hear that the key has an end.
            assert await town.seconds_until(401, old_text) < 1

    for sender in everyone:
        await sender.send_more()
    for task in sending:
        task.cancel()
    await asyncio.wait(sending)

    assert all(set(sender.statuses) == {200} for sender in everyone)
    sent = {f"{sender.name} {n}" for sender in everyone for n in range(len(sender.statuses))}
    assert sent <= town.mesh.stored


async def test_a_revoked_key_stops_on_every_gateway_within_a_second(town: Town) -> None:
    store_uid = await town.new_store()
    created = await town.new_key(store_uid)
    assert await town.statuses(created.text) == [200, 200]

    await town.operator.RevokeKey(
        keys_pb2.RevokeKeyRequest(store_uid=store_uid, key_uid=created.key.uid), timeout=5
    )

    assert await town.seconds_until(401, created.text) < 1


async def test_a_key_rotated_without_overlap_stops_within_a_second(town: Town) -> None:
    created = await town.new_key(await town.new_store())
    assert await town.statuses(created.text) == [200, 200]

    rotated = await rotate(town, created.key, timedelta())

    assert await town.seconds_until(401, created.text) < 1
    assert await town.statuses(rotated.text) == [200, 200]


async def test_the_keys_of_a_store_stop_and_come_back_with_it_within_a_second(
    town: Town,
) -> None:
    store_uid = await town.new_store()
    created = await town.new_key(store_uid)
    assert await town.statuses(created.text) == [200, 200]

    await town.operator.DeleteStore(keys_pb2.DeleteStoreRequest(store_uid=store_uid), timeout=5)
    assert await town.seconds_until(401, created.text) < 1
    await town.operator.UndeleteStore(keys_pb2.UndeleteStoreRequest(store_uid=store_uid), timeout=5)

    assert await town.seconds_until(200, created.text) < 1


async def test_what_was_revoked_while_a_gateway_could_not_hear_of_it_stops_afterwards(
    town: Town,
) -> None:
    store_uid = await town.new_store()
    created = await town.new_key(store_uid)
    assert await town.statuses(created.text) == [200, 200]
    await town.mesh.stop("keys")
    await town.operator.RevokeKey(
        keys_pb2.RevokeKeyRequest(store_uid=store_uid, key_uid=created.key.uid), timeout=5
    )
    assert await town.statuses(created.text) == [200, 200]

    await town.mesh.start("keys")

    # Far sooner than what is remembered ends: a channel tries again at least every second.
    assert await town.seconds_until(401, created.text) < 3


async def test_pages_that_have_the_old_key_are_told_the_new_one(town: Town) -> None:
    created = await town.new_key(await town.new_store())
    rotated = await rotate(town, created.key)
    reader = town.gateways[0]

    settings = await reader.get(f"/v1/projects/{created.text}/settings")
    source = await reader.get("/sourceConfig", params={"writeKey": created.text})

    assert settings.json()["integrations"]["Segment.io"]["apiKey"] == rotated.text
    assert source.json()["source"]["writeKey"] == rotated.text
