"""The private MariaDB: what its users may do, and that it keeps what it holds."""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from deploy.local import mariadb
from deploy.local.mariadb import MariadbServer

SERVICES = ("ingest", "query")
PASSWORDS = {service: secrets.token_hex(8) for service in SERVICES}
MIGRATION_PASSWORDS = {service: secrets.token_hex(8) for service in SERVICES}


@pytest.fixture(scope="module")
async def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mariadb")


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[MariadbServer]:
    async with mariadb.running(
        directory, passwords=PASSWORDS, migration_passwords=MIGRATION_PASSWORDS
    ) as server:
        yield server


@pytest.fixture(scope="module")
async def server(directory: Path) -> AsyncIterator[MariadbServer]:
    async with running(directory) as server:
        async with connection(server.migration_url("ingest")) as migration:
            await migration.execute(text("CREATE TABLE things (id INT PRIMARY KEY)"))
            await grant(migration, server, "ingest", "things")
        yield server


async def grant(
    migration: AsyncConnection, server: MariadbServer, service: str, table: str
) -> None:
    """Do what migrations do for the service's run-time user."""
    verbs = "SELECT, INSERT, UPDATE, DELETE"
    await migration.execute(text(f"GRANT {verbs} ON {table} TO {server.account(service)}"))


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            yield connection
    finally:
        await engine.dispose()


async def rows(url: str, statement: str) -> Sequence[Row[Any]]:
    async with connection(url) as connected:
        result = await connected.execute(text(statement))
        return result.all() if result.returns_rows else []


async def test_a_service_reads_and_writes_rows_of_its_own_schema(server: MariadbServer) -> None:
    url = server.url("ingest")

    await rows(url, "INSERT INTO things VALUES (1), (2)")
    await rows(url, "UPDATE things SET id = 3 WHERE id = 2")
    await rows(url, "DELETE FROM things WHERE id = 1")

    assert [row.id for row in await rows(url, "SELECT id FROM things")] == [3]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE more (id INT)",
        "ALTER TABLE things ADD COLUMN more INT",
        "DROP TABLE things",
        "TRUNCATE TABLE things",
        "CREATE INDEX more ON things (id)",
        "CREATE TRIGGER more BEFORE INSERT ON things FOR EACH ROW SET @more = 1",
        "CREATE USER someone IDENTIFIED BY 'else'",
        "GRANT SELECT ON ingest.* TO 'query'@'127.0.0.1'",
        "SET GLOBAL general_log = 1",
        "SELECT * FROM mysql.global_priv",
        "SELECT 1 INTO OUTFILE '/tmp/shoptrail-outfile'",
    ],
)
async def test_a_service_changes_neither_tables_nor_the_server(
    server: MariadbServer, statement: str
) -> None:
    with pytest.raises(DBAPIError, match="denied"):
        await rows(server.url("ingest"), statement)


@pytest.mark.parametrize("statement", ["SELECT * FROM ingest.things", "USE ingest"])
async def test_another_services_schema_is_closed(server: MariadbServer, statement: str) -> None:
    for url in (server.url("query"), server.migration_url("query")):
        with pytest.raises(DBAPIError, match="denied"):
            await rows(url, statement)


async def test_a_migration_changes_tables_of_its_own_schema(server: MariadbServer) -> None:
    url = server.migration_url("query")

    await rows(url, "CREATE TABLE changing (id INT)")
    await rows(url, "ALTER TABLE changing ADD COLUMN name VARCHAR(20)")
    await rows(url, "CREATE INDEX by_name ON changing (name)")
    await rows(url, "DROP TABLE changing")


@pytest.mark.parametrize("login", ["root@", "mysql@", "@", "ingest:wrong@"])
async def test_nobody_else_gets_in(server: MariadbServer, login: str) -> None:
    with pytest.raises(DBAPIError, match="denied"):
        await rows(f"mysql+aiomysql://{login}127.0.0.1:{server.port}/", "SELECT 1")


async def test_a_schema_holds_every_letter(server: MariadbServer) -> None:
    assert await rows(server.url("ingest"), "SELECT @@character_set_database AS name") == [
        ("utf8mb4",)
    ]


async def test_a_commit_is_as_durable_as_by_default(server: MariadbServer) -> None:
    settings = "SELECT @@innodb_flush_log_at_trx_commit, @@innodb_doublewrite"
    (row,) = await rows(server.url("ingest"), settings)
    assert tuple(row) == (1, 1)


async def test_rows_outlive_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        async with connection(server.migration_url("query")) as migration:
            await migration.execute(text("CREATE TABLE kept (id INT)"))
            await grant(migration, server, "query", "kept")
        await rows(server.url("query"), "INSERT INTO kept VALUES (7)")

    async with running(tmp_path) as server:
        assert [row.id for row in await rows(server.url("query"), "SELECT id FROM kept")] == [7]


async def test_a_directory_with_a_long_path_will_do(tmp_path: Path) -> None:
    async with running(tmp_path / ("long" * 30)) as server:
        assert await rows(server.migration_url("query"), "SELECT 1") == [(1,)]
