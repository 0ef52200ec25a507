"""A mesh in which a test looks for what was planted: in its tables, its files and its Redis."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from common.client import open_channel
from common.db import Database, open_database
from common.tls import Certificates
from deploy.local.backup import databases
from deploy.local.environment import COLUMNS, Secrets, keep_secrets
from shoptrail.keys.v1 import api_key_pb2, keys_pb2, keys_pb2_grpc


class Launched:
    """A mesh of a test's own, which can be stopped, and started again."""

    def __init__(self, directory: Path, database: str = "sqlite") -> None:
        self.directory = directory
        self.database = database
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.mesh.searched_mesh", "--port", "0", "--database", self.database),
            *("--directory", str(self.directory)),
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

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[dict[str, Database]]:
        """The databases by service, while it is stopped."""
        async with AsyncExitStack() as stack:
            urls = await stack.enter_async_context(
                databases(self.directory, self.database, self.secrets)
            )
            opened = {service: open_database(url) for service, url in urls.items()}
            for database in opened.values():
                stack.push_async_callback(database.dispose)
            yield opened

    @property
    def secrets(self) -> Secrets:
        """What its processes know and nobody else."""
        return keep_secrets(self.directory / "secrets.json")

    @property
    def columns_path(self) -> Path:
        """Where Query's columns are."""
        return self.directory / self.database / COLUMNS

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
        passwords = self.secrets.redis_passwords
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
                kind = await redis.type(key)
                if kind == b"none":
                    continue  # It has expired meanwhile.
                text = repr((key, await read[kind](key)))
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
