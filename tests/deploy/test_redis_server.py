"""The private Redis: what its users may do."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import AuthenticationError, ResponseError

from deploy.local import redis
from deploy.local.redis import RedisServer

NO_PERMISSION = r"[Nn]o permission"
PASSWORDS = {"ingest": "a1", "query": "b2"}


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RedisServer]:
    async with redis.running(tmp_path_factory.mktemp("redis"), PASSWORDS) as server:
        yield server


async def call(client: Redis, *command: str) -> None:
    await client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py has no types


@asynccontextmanager
async def client_of(url: str, retry: Retry | None = None) -> AsyncIterator[Redis]:
    client: Redis = Redis.from_url(url, decode_responses=True, retry=retry)
    try:
        yield client
    finally:
        await client.aclose()


async def test_a_service_uses_its_own_keys(server: RedisServer) -> None:
    async with client_of(server.url("ingest")) as client:
        lock = client.lock("ingest:lock", timeout=5)
        assert await lock.acquire()
        assert await lock.extend(5)
        await lock.release()
        script = await client.script_load("return redis.call('SET', KEYS[1], 'x', 'PX', 5000)")
        assert await client.evalsha(script, 1, "ingest:scripted") == "OK"
        assert await client.get("ingest:scripted") == "x"
        assert await client.delete("ingest:scripted") == 1


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "query:a"),
        ("SET", "query:a", "1"),
        ("DEL", "query:a"),
        ("EVAL", "return redis.call('GET', KEYS[1])", "1", "query:a"),
        ("EVAL", "return redis.call('GET', 'query:a')", "0"),
        ("RENAME", "ingest:a", "query:a"),
        ("SORT", "ingest:a", "BY", "query:*"),
    ],
)
async def test_another_services_keys_are_closed(
    server: RedisServer, command: tuple[str, ...]
) -> None:
    async with client_of(server.url("ingest")) as client:
        with pytest.raises(ResponseError, match=NO_PERMISSION):
            await call(client, *command)


@pytest.mark.parametrize(
    "command",
    [
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("RANDOMKEY",),
        ("FLUSHALL",),
        ("SWAPDB", "0", "1"),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("SCRIPT", "FLUSH"),
        ("FUNCTION", "FLUSH"),
        ("CLIENT", "LIST"),
        ("SHUTDOWN", "NOSAVE"),
    ],
)
async def test_the_server_as_a_whole_is_closed(
    server: RedisServer, command: tuple[str, ...]
) -> None:
    async with client_of(server.url("ingest")) as client:
        with pytest.raises(ResponseError, match=NO_PERMISSION):
            await call(client, *command)


@pytest.mark.parametrize("login", ["", "ingest:wrong@", ":b2@"])
async def test_nobody_else_gets_in(server: RedisServer, login: str) -> None:
    async with client_of(f"redis://{login}127.0.0.1:{server.port}/0") as client:
        with pytest.raises(AuthenticationError):
            await client.ping()


async def test_no_password_is_on_the_disk_or_the_command_line(tmp_path: Path) -> None:
    async with redis.running(tmp_path, {"ingest": "planted-password"}) as server:
        assert exposed(tmp_path, server, "ingest") == ["users.acl"]
        assert exposed(tmp_path, server, "planted-password") == []


def exposed(directory: Path, server: RedisServer, word: str) -> list[str]:
    """The files that hold the word, the server's command line among them."""
    files = [Path(f"/proc/{server.child.pid}/cmdline"), *directory.iterdir()]
    return [file.name for file in files if word in file.read_text()]


async def test_a_killed_server_comes_back_on_its_port(server: RedisServer) -> None:
    killed = server.child.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)

    async with client_of(server.url("ingest"), Retry(ConstantBackoff(0.05), 200)) as client:
        assert await client.ping()
    assert server.child.pid != killed
