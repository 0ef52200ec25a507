"""Real databases, a real Redis and real servers over mutual TLS for every test."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from xdist.scheduler import LoadScopeScheduling

try:
    import shoptrail.errors.v1.error_reason_pb2  # noqa: F401 - is it there?
except ImportError as error:
    raise SystemExit("The generated code is missing: run `make protos`.") from error

from common.client import open_channel
from common.context import KEY_SCOPES, KEY_STORE_UID, KEY_UID
from common.db import Database, open_database
from common.migrate import SERVICES, metadata_of, upgrade
from common.server import build_server, listen
from common.tls import Certificates
from deploy.local import environment, mariadb, redis
from deploy.local.certificates import issue_certificates
from deploy.local.mariadb import MariadbServer
from tests.mysql import borrowed

IDENTITIES = (*environment.IDENTITIES, "stranger")
NOBODY: Any = None
"""Stands in for a service that isn't asked."""

# Tests with many processes, which other tests of the kind would keep waiting.
_CROWDED = ("tests/deploy/", "tests/drills/", "tests/dashboard/", "tests/mesh/")


_WORKER = "PYTEST_XDIST_WORKER"
_TEMPORARY = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Have all programs keep their temporary files in one place: browsers leave some behind.

    Not below the checkout, since sockets are among them, whose paths must be short.
    """
    if _WORKER not in os.environ:
        config.stash[_TEMPORARY] = Path(tempfile.mkdtemp(prefix="shoptrail-"))
        os.environ["TMPDIR"] = str(config.stash[_TEMPORARY])
        tempfile.tempdir = None


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what they left."""
    if _TEMPORARY in config.stash:
        shutil.rmtree(config.stash[_TEMPORARY], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with crowded tests, which take longest."""
    items.sort(key=lambda item: not item.nodeid.startswith(_CROWDED))


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    def _split_scope(self, nodeid: str) -> str:
        return "crowded" if nodeid.startswith(_CROWDED) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Where tests run in several processes: crowded ones in one, and each file's in one."""
    return _Scheduling(config, log)


class Connect:
    """Gives channels to a server, each with the certificate of an identity."""

    def __init__(
        self, address: str, service: str, certificates: Mapping[str, Certificates]
    ) -> None:
        self.address = address
        self._service = service
        self._certificates = certificates
        self._channels: dict[str, grpc.aio.Channel] = {}

    def __call__(self, identity: str) -> grpc.aio.Channel:
        if identity not in self._channels:
            self._channels[identity] = open_channel(
                self.address, self._service, "localhost", self._certificates[identity]
            )
        return self._channels[identity]

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()


Serving = Callable[
    [Sequence[str], Callable[[grpc.aio.Server], None]], AbstractAsyncContextManager[Connect]
]
Databases = Callable[[str], AbstractAsyncContextManager[Database]]


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory for the servers of the whole session; gone at its end."""
    directory = tmp_path_factory.mktemp("servers")
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def certificates(scratch: Path) -> Mapping[str, Certificates]:
    """A certificate for each identity, and for a stranger whom no rule names."""
    issued = issue_certificates(scratch / "tls", IDENTITIES, now=datetime.now(UTC))
    return {
        identity: Certificates(
            certificate=files.certificate.read_bytes(),
            key=files.key.read_bytes(),
            authority=files.authority.read_bytes(),
        )
        for identity, files in issued.items()
    }


@pytest.fixture(scope="session")
async def mariadb_server(scratch: Path) -> AsyncIterator[MariadbServer]:
    """A private MariaDB with a migrated schema for each service, or the MySQL that is named."""
    passwords = {service: secrets.token_hex(8) for service in SERVICES}
    address = os.environ.get("SHOPTRAIL_TEST_MYSQL")
    if address:
        starting = borrowed(address, scratch / "mysql.log", passwords=passwords)
    else:
        starting = mariadb.running(
            scratch / "mariadb", passwords=passwords, migration_passwords=passwords
        )
    async with starting as server:
        for service in SERVICES:
            url, account = server.migration_url(service), server.account(service)
            await upgrade(service, url, grant_to=account)
        yield server


@pytest.fixture(scope="session")
async def redis_urls(scratch: Path) -> AsyncIterator[Mapping[str, str]]:
    """The URL of a real Redis, for each service's own user."""
    passwords = {service: secrets.token_hex(8) for service in SERVICES}
    async with redis.running(scratch / "redis", passwords) as server:
        yield {service: server.url(service) for service in SERVICES}


@pytest.fixture(scope="session")
def sqlite_template(scratch: Path) -> Callable[[str], Awaitable[Path]]:
    """Makes a service's migrated SQLite file once, to be copied."""
    made: dict[str, Path] = {}

    async def template(service: str) -> Path:
        if service not in made:
            path = scratch / f"{service}-template.db"
            await upgrade(service, f"sqlite+aiosqlite:///{path}")
            made[service] = path
        return made[service]

    return template


@pytest.fixture(params=["sqlite", "mariadb"])
def databases(
    request: pytest.FixtureRequest,
    sqlite_template: Callable[[str], Awaitable[Path]],
    tmp_path: Path,
) -> Databases:
    """Opens a service's own database, migrated and empty, as its run-time user."""

    @asynccontextmanager
    async def on_sqlite(service: str) -> AsyncIterator[Database]:
        path = tmp_path / f"{service}.db"
        shutil.copy(await sqlite_template(service), path)
        database = open_database(f"sqlite+aiosqlite:///{path}")
        yield database
        await database.dispose()

    if request.param == "sqlite":
        return on_sqlite
    server: MariadbServer = request.getfixturevalue("mariadb_server")

    @asynccontextmanager
    async def on_mariadb(service: str) -> AsyncIterator[Database]:
        database = open_database(server.url(service))
        yield database
        await database.dispose()
        await empty(server, service)

    return on_mariadb


@pytest.fixture
def serving(certificates: Mapping[str, Certificates]) -> Serving:
    """Starts production's server with what `register` puts on it; gives channels to it."""

    @asynccontextmanager
    async def serve(
        services: Sequence[str], register: Callable[[grpc.aio.Server], None]
    ) -> AsyncIterator[Connect]:
        server = build_server(services)
        register(server)
        port = listen(server, "127.0.0.1:0", certificates["ingest"])
        await server.start()
        connect = Connect(f"127.0.0.1:{port}", services[0], certificates)
        yield connect
        await connect.close()
        await server.stop(None)

    return serve


def key_metadata(*scopes: str, store_uid: str = "") -> tuple[tuple[str, str], ...]:
    """What the gateway sends with a call on behalf of a key."""
    return (
        (KEY_UID, "key_00000000000000000000000001"),
        (KEY_STORE_UID, store_uid),
        (KEY_SCOPES, ",".join(scopes)),
    )


async def empty(server: MariadbServer, service: str) -> None:
    """Remove all rows of the service's tables."""
    cleaner = open_database(server.migration_url(service))
    async with cleaner.begin() as transaction:
        for table in reversed(metadata_of(service).sorted_tables):
            await transaction.execute(table.delete())
    await cleaner.dispose()
