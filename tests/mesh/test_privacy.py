"""A person asks to be forgotten, over HTTP: of what was sent, no process's files have anything."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.mesh.launched import Launched

PLANTED = ("ada-4711", "phone-4711", "ada@planted.example", "planted words")


@pytest.fixture
async def launched(tmp_path: Path) -> AsyncIterator[Launched]:
    launched = Launched(tmp_path / "mesh")
    await launched.start()
    yield launched
    await launched.stop()


async def test_what_is_erased_over_http_is_in_no_file_any_more(launched: Launched) -> None:
    told = launched.announcement
    key = await launched.privacy_key()
    store = f"/v1/stores/{told['store_uid']}"
    batch = [
        {
            "type": kind,
            "messageId": f"m{number}",
            "event": "Met",
            "userId": "ada-4711",
            "anonymousId": "phone-4711",
            "traits": {"email": "ada@planted.example"},
            "properties": {"note": "planted words"},
        }
        for number, kind in enumerate(["identify", *["track"] * 40, "page"])
    ]
    async with httpx.AsyncClient(base_url=told["gateway"], timeout=20) as http:
        sent = await http.post("/v1/batch", auth=(told["write_key"], ""), json={"batch": batch})
        assert sent.json()["accepted"] == 42
        authorized = {"Authorization": f"Bearer {key}"}
        refused = await http.post(
            f"{store}/privacy-cases",
            headers={"Authorization": f"Bearer {told['secret_key']}"},
            json={"kind": "ERASE", "email": "ada@planted.example"},
        )
        assert refused.status_code == 403
        assert launched.files_with(*PLANTED) != []

        opened = await http.post(
            f"{store}/privacy-cases",
            headers=authorized,
            json={"kind": "ERASE", "email": "ada@planted.example"},
        )
        case = opened.json()["case"]
        async with asyncio.timeout(60):
            while case["state"] != "CASE_STATE_DONE":
                await asyncio.sleep(0.1)
                path = f"{store}/privacy-cases/{case['uid']}"
                case = (await http.get(path, headers=authorized)).json()["case"]

        again = await http.post("/v1/batch", auth=(told["write_key"], ""), json={"batch": batch})
        assert again.json()["suppressed"] == 42
        listing = await http.get(f"{store}/events", auth=(told["secret_key"], ""))
        assert {event["user_id"] for event in listing.json()["events"]} == {""}
        keys = (await http.get("/.well-known/shoptrail-receipts.json")).json()["keys"]
    receipt = case["receipt"]
    (jwk,) = (one for one in keys if one["kid"] == receipt["key_id"])
    Ed25519PublicKey.from_public_bytes(urlsafe_b64decode(jwk["x"] + "=")).verify(
        urlsafe_b64decode(receipt["signature"] + "=="), receipt["content"].encode()
    )
    assert json.loads(receipt["content"])["erased"]["ingest.events"] == 42

    assert await launched.redis_keys_with(*PLANTED) == []
    async with launched.redis("ingest") as redis:
        await redis.hset("ingest:remembered", "who", "ada-4711")
    assert await launched.redis_keys_with(*PLANTED) == ["b'ingest:remembered'"]
    await launched.stop()

    assert launched.files_with(*PLANTED) == []
    backup = launched.directory.parent / "shop.backup"
    saved, restored = (
        await launched.backup("save", backup),
        await launched.backup("restore", backup),
    )
    assert saved == restored
