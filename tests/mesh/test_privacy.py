"""A person asks to be forgotten, over HTTP: of what was sent, no process's files have anything."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from redis.asyncio import Redis

from common.client import open_channel
from common.tls import Certificates
from shoptrail.keys.v1 import api_key_pb2, keys_pb2, keys_pb2_grpc

PLANTED = ("ada-4711", "phone-4711", "ada@planted.example", "planted words")


class Launched:
    """A mesh of this test's own, which can be stopped."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.mesh.searched_mesh", "--port", "0", "--directory", str(self.directory)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(120):
            while b"is up at" not in (line := await self._process.stdout.readline()):
                assert line, "the launcher ended; what it said is above"

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            async with asyncio.timeout(60):
                await process.communicate()

    @property
    def announcement(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "mesh.json").read_bytes())
        return found

    async def privacy_key(self) -> str:
        """A secret key that may open privacy cases, which must be asked for by name."""
        tls = self.directory / "tls"
        certificates = Certificates(
            certificate=(tls / "operator.pem").read_bytes(),
            key=(tls / "operator.key").read_bytes(),
            authority=(tls / "authority.pem").read_bytes(),
        )
        told = self.announcement
        async with open_channel(
            told["grpc"]["keys"], "shoptrail.keys.v1.Keys", "keys", certificates
        ) as channel:
            answer = await keys_pb2_grpc.KeysStub(channel).CreateKey(
                keys_pb2.CreateKeyRequest(
                    store_uid=told["store_uid"],
                    kind=api_key_pb2.KEY_KIND_SECRET,
                    scopes=["privacy:write", "events:read"],
                ),
                timeout=5,
            )
        return answer.text

    async def backup(self, what: str, file: Path) -> bytes:
        """What the command says that saves and restores."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "deploy.local.backup", what, str(file), "--directory", str(self.directory)),
            stdout=asyncio.subprocess.PIPE,
        )
        told, _ = await process.communicate()
        assert process.returncode == 0
        return told

    @property
    def redis_port(self) -> int:
        # The server calls itself by where it listens.
        title = Path(f"/proc/{self.announcement['pids']['redis']}/cmdline").read_text()
        (port,) = re.findall(r"127\.0\.0\.1:(\d+)", title)
        return int(port)

    def redis(self, user: str) -> Redis:
        """Redis as a service's user, or as `searcher`, who may read all keys."""
        passwords = json.loads((self.directory / "secrets.json").read_bytes())["redis_passwords"]
        return Redis(port=self.redis_port, username=user, password=passwords.get(user, "any"))

    async def redis_keys_with(self, *planted: str) -> list[str]:
        """The keys of Redis that have one of these texts, in their names or values."""
        found = []
        async with self.redis("searcher") as redis:
            async for key in redis.scan_iter():
                read: dict[Any, Any] = {
                    b"string": redis.get,
                    b"hash": redis.hgetall,
                    b"list": lambda one: redis.lrange(one, 0, -1),
                    b"set": redis.smembers,
                    b"zset": lambda one: redis.zrange(one, 0, -1),
                    b"stream": redis.xrange,
                }
                text = repr((key, await read[await redis.type(key)](key)))
                if any(one in text for one in planted):
                    found.append(repr(key))
        return found

    def files_with(self, *planted: str) -> list[str]:
        """The files below the directory that have one of these texts."""
        return [
            str(path.relative_to(self.directory))
            for path in sorted(self.directory.rglob("*"))
            if path.is_file() and any(one.encode() in path.read_bytes() for one in planted)
        ]


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
