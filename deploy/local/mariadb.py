"""A private MariaDB server with a schema and two users for each service."""

import asyncio
import os
import shutil
import string
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.local import ports
from deploy.local.private_files import make_private_directory, write_private
from deploy.local.processes import Child, Program, StartError, kept_running

_ACCOUNTS = Path(__file__).parents[1] / "mysql" / "accounts.sql"
# Debian keeps servers where the PATH of a user who isn't root doesn't look.
_SERVER_DIRECTORIES = ("/usr/sbin", "/usr/local/sbin")
_CLIENT_HOST = "127.0.0.1"
_START_SECONDS = 30.0
_STOP_SECONDS = 20.0
# The kernel takes 107 bytes; the server appends to the name while it starts.
_LONGEST_SOCKET_PATH = 90


@dataclass(frozen=True, slots=True)
class MariadbServer:
    """A running server. `child` stops and starts it."""

    port: int
    passwords: Mapping[str, str]
    migration_passwords: Mapping[str, str]
    child: Child
    host: str = "127.0.0.1"
    client_host: str = _CLIENT_HOST

    def account(self, service: str) -> str:
        """The service's run-time user, to whom its migrations grant what it may do."""
        return f"'{service}'@'{self.client_host}'"

    def url(self, service: str) -> str:
        """The service's schema, as its run-time user: rows, but not tables, may be changed."""
        return self._url(service, service, self.passwords[service])

    def migration_url(self, service: str) -> str:
        """The service's schema, as the user who may change its tables."""
        return self._url(service, f"{service}_migration", self.migration_passwords[service])

    def _url(self, schema: str, user: str, password: str) -> str:
        address = f"{user}:{password}@{self.host}:{self.port}"
        return f"mysql+aiomysql://{address}/{schema}?charset=utf8mb4"


@asynccontextmanager
async def running(
    directory: Path,
    *,
    passwords: Mapping[str, str],
    migration_passwords: Mapping[str, str],
    log: Path | None = None,
    on_restart: Callable[[], None] | None = None,
    options: Sequence[str] = (),
    client_host: str = _CLIENT_HOST,
) -> AsyncIterator[MariadbServer]:
    """Run a server for the block, with the accounts of each service that has passwords.

    Its files are in the directory, and found again by the next start; it listens on a free
    port of 127.0.0.1 and is as durable as the defaults make it. Its log is `mariadb.log` in
    the directory, unless told otherwise. `options` are more of the server's own, and
    `client_host` is where the accounts may come from. Passwords are
    of letters and digits only. Raises `StartError`, also if the server isn't installed.
    """
    make_private_directory(directory)
    server = _find("mariadbd")
    data = directory / "data"
    if not data.exists():
        await _install(data)
    accounts = directory / "accounts.sql"
    statements = accounts_of(client_host, passwords, migration_passwords)
    write_private(accounts, statements.encode())
    with ports.reserved(1) as (port,), _socket_path(directory) as socket_path:
        program = Program(
            name="mariadb",
            arguments=(
                server,
                "--no-defaults",
                f"--datadir={data}",
                f"--socket={socket_path}",
                f"--port={port}",
                "--bind-address=127.0.0.1",
                "--skip-name-resolve",
                "--character-set-server=utf8mb4",
                # Else 128 MiB, and from a million events on it reads and writes pages all the time.
                # Memory is taken as pages are, so a small database stays small.
                "--innodb-buffer-pool-size=1G",
                f"--init-file={accounts}",
                *options,
                *_as_user(),
            ),
            log=log or directory / "mariadb.log",
        )
        child = Child(program, on_restart=on_restart)
        async with kept_running(child, patience_seconds=_STOP_SECONDS):
            await child.wait_until(lambda: _answers(port), within_seconds=_START_SECONDS)
            yield MariadbServer(
                port, passwords, migration_passwords, child, client_host=client_host
            )


def _find(program: str) -> str:
    path = os.pathsep.join([os.environ.get("PATH", ""), *_SERVER_DIRECTORIES])
    found = shutil.which(program, path=path)
    if found is None:
        raise StartError(
            f"{program} is not installed. On Debian: "
            "apt-get install mariadb-server-core mariadb-client-core"
        )
    return found


async def _install(data: Path) -> None:
    """Make the server's own tables, all or nothing. Its root can't log in over the network."""
    draft = Path(tempfile.mkdtemp(prefix=".data.", dir=data.parent))
    try:
        process = await asyncio.create_subprocess_exec(
            _find("mariadb-install-db"),
            "--no-defaults",
            f"--datadir={draft}",
            "--auth-root-authentication-method=socket",
            "--skip-test-db",
            "--skip-name-resolve",
            *_as_user(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode != 0:
            raise StartError(f"mariadb-install-db failed:\n{output.decode(errors='replace')}")
        shutil.move(draft, data)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _as_user() -> tuple[str, ...]:
    # The server refuses to run as root unless it is told to.
    return ("--user=root",) if os.geteuid() == 0 else ()


def accounts_of(
    client_host: str, passwords: Mapping[str, str], migration_passwords: Mapping[str, str]
) -> str:
    """The statements that make each service's schema and users, who come from that host."""
    template = string.Template(_ACCOUNTS.read_text())
    return "\n".join(
        template.substitute(
            service=service,
            client_host=client_host,
            password=password,
            migration_password=migration_passwords[service],
        )
        for service, password in passwords.items()
    )


@contextmanager
def _socket_path(directory: Path) -> Iterator[Path]:
    path = directory / "mariadb.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="shoptrail-", dir="/tmp") as short:
        yield Path(short) / "mariadb.sock"


async def _answers(port: int) -> bool:
    """Whether the server greets, which it does once it has run the accounts' statements."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return len(await reader.read(5)) == 5
        finally:
            writer.close()
    except OSError:
        return False
