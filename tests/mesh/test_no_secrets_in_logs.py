"""Whatever is sent, no log line of any process has a key's text or what tells who a person is."""

from __future__ import annotations

import re

from tests.mesh.conftest import RunningMesh, Shop

KEY_TEXT = re.compile(r"[psc]k_(?:live|test)_[0-9A-Za-z]{12,}")
PLANTED = (
    "ada.planted@example.test",
    "planted-user-4711",
    "planted-anonymous-4711",
    "planted-message-4711",
    "198.51.100.47",
    "Planted/4711 agent",
    "planted-4711-value",
)


async def test_keys_and_personal_data_stay_out_of_all_logs(mesh: RunningMesh, shop: Shop) -> None:
    event = {
        "type": "track",
        "event": "Order Completed",
        "userId": "planted-user-4711",
        "anonymousId": "planted-anonymous-4711",
        "messageId": "planted-message-4711",
        "properties": {"email": "ada.planted@example.test", "total": "planted-4711-value"},
        "context": {"ip": "198.51.100.47"},
    }
    headers = {"User-Agent": "Planted/4711 agent", "X-Forwarded-For": "198.51.100.47"}
    store = f"/v1/stores/{shop.store_uid}"
    async with mesh.client(shop.write_key) as sender, mesh.client(shop.secret_key) as reader:
        sender.headers.update(headers)
        reader.headers.update(headers)
        accepted = await sender.post("/v1/batch", json={"batch": [event, {"type": 4711}, event]})
        for body in ("planted-4711-value", '{"userId": "planted-user-4711"', '["planted-4711"]'):
            await sender.post("/v1/track", content=body)
        await sender.get("/v1/pixel/track", params={"data": "planted-4711-value"})
        await sender.post("/v1/track?writeKey=" + shop.secret_key, json=event)
        await sender.post("/v1/track", json={**event, "writeKey": shop.secret_key})
        await sender.get(f"/v1/projects/{shop.write_key}/settings")
        await sender.get(f"/{shop.secret_key}/ada.planted@example.test")
        await reader.get(f"{store}/events", params={"user_id": "planted-user-4711"})
        await reader.get(f"{store}/events", params={"page_token": "planted-4711-value"})
        await reader.get(f"{store}/keys/{shop.secret_key}")
        await reader.post(f"{store}/keys", json={"display_name": "ada.planted@example.test"})
        await reader.post(f"{store}/keys", json={"kind": "planted-4711-value"})
        await reader.get(f"{store}/events", headers={"Origin": "https://planted-4711-value.test"})
        await reader.get("/v1/stores", headers={"Authorization": f"Bearer {shop.secret_key}x"})

    assert accepted.status_code == 200
    logs = {path: path.read_text() for path in (mesh.directory / "logs").iterdir()}
    assert any("gateway" in path.name and text for path, text in logs.items())
    for path, text in logs.items():
        assert not KEY_TEXT.search(text), path.name
        for planted in PLANTED:
            assert planted not in text, path.name
