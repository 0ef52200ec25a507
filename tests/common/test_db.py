"""A service's database, and what is left of its connections."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import ssl
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from common.db import Database, kept_tidy, note_untidy, open_database
from common.migrate import upgrade
from deploy.local import mariadb
from deploy.local.certificates import issue_certificates
from deploy.local.mariadb import MariadbServer
from tests.conftest import Databases


async def test_a_call_that_was_just_cancelled_leaves_no_connection_behind(
    databases: Databases,
) -> None:
    reached = asyncio.Event()

    async def read(database: Database) -> None:
        async with database.read() as snapshot:
            await snapshot.execute(text("SELECT 1"))
            reached.set()
            await asyncio.Event().wait()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with databases("keys") as database:
            call = asyncio.create_task(read(database))
            await reached.wait()
            call.cancel()
        assert call.done()
        del call, database
        gc.collect()

    assert [str(each.message) for each in caught if each.category is ResourceWarning] == []


async def test_a_connection_that_is_given_back_when_all_was_closed_is_closed_too(
    mariadb_server: MariadbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.db._FAREWELL_SECONDS", 0.05)
    database = open_database(mariadb_server.url("keys"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with database.read() as snapshot:
            await snapshot.execute(text("SELECT 1"))
            await database.dispose()
        del snapshot, database
        gc.collect()

    assert [str(each.message) for each in caught if each.category is ResourceWarning] == []


async def test_a_database_that_is_gone_without_a_word_is_noticed(
    mariadb_server: MariadbServer,
) -> None:
    database = open_database(mariadb_server.url("keys"))
    async with database.begin() as transaction:
        raw = await transaction.get_raw_connection()
        connection: Any = raw.driver_connection
        sock = connection._writer.get_extra_info("socket")
        options = [
            sock.getsockopt(level, option)
            for level, option in (
                (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
                (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
            )
        ]
    await database.dispose()

    assert options == [1, 5, 5, 3, 20_000]


async def test_a_connection_whose_other_end_is_gone_is_closed_too(
    mariadb_server: MariadbServer,
) -> None:
    database = open_database(mariadb_server.url("keys"))
    async with database.read() as snapshot:
        await snapshot.execute(text("SELECT 1"))
        driver: Any = (await snapshot.get_raw_connection()).driver_connection
    driver._writer.transport.abort()
    await asyncio.sleep(0)  # It hears of that in the loop's next turn.

    await database.dispose()

    assert driver.closed


async def test_an_idle_connection_that_was_ended_is_replaced(
    mariadb_server: MariadbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.db._MYSQL_TRUSTED_SECONDS", 0.0)
    database = open_database(mariadb_server.url("keys"))
    other = open_database(mariadb_server.url("keys"))
    id_of = text("SELECT CONNECTION_ID()")
    async with database.read() as snapshot:
        ended = await snapshot.scalar(id_of)
    async with other.begin() as transaction:
        await transaction.execute(text(f"KILL {ended:d}"))
    async with database.begin() as transaction:
        replaced = await transaction.scalar(id_of)
    await database.dispose()
    await other.dispose()

    assert replaced != ended


async def test_no_transaction_is_left_on_a_connection_that_comes_back(
    mariadb_server: MariadbServer,
) -> None:
    database = open_database(mariadb_server.url("keys"))
    look = text("SELECT CONNECTION_ID(), @@in_transaction")
    stores = text("SELECT COUNT(*) FROM stores FOR UPDATE")
    found = []
    for block in (database.read, database.begin):
        async with block() as connection:
            found.append((await connection.execute(look)).one())
            await connection.execute(stores)
    with pytest.raises(ZeroDivisionError):
        async with database.begin() as transaction:
            await transaction.execute(stores)
            raise ZeroDivisionError
    async with database.begin() as transaction:
        found.append((await transaction.execute(look)).one())
    await database.dispose()

    assert {tuple(row) for row in found} == {(found[0][0], 0)}


async def test_mysql_is_spoken_to_over_tls_by_accounts_of_any_host(tmp_path: Path) -> None:
    """As in a cluster, where nobody knows from which address a pod comes."""
    issued = issue_certificates(tmp_path / "tls", ["ingest"], now=datetime.now(UTC))["ingest"]
    other = issue_certificates(tmp_path / "other", ["ingest"], now=datetime.now(UTC))["ingest"]
    passwords = {"ingest": "secret"}
    async with mariadb.running(
        tmp_path / "mariadb",
        passwords=passwords,
        migration_passwords=passwords,
        client_host="%",
        options=(
            f"--ssl-cert={issued.certificate}",
            f"--ssl-key={issued.key}",
            "--require-secure-transport=ON",
        ),
    ) as server:
        url = f"{server.url('ingest')}&ssl_ca="
        assert server.account("ingest") == "'ingest'@'%'"
        await upgrade(
            "ingest",
            f"{server.migration_url('ingest')}&ssl_ca={issued.authority}",
            grant_to=server.account("ingest"),
        )
        assert await cipher_of(f"{url}{issued.authority}")
        # Another's authority is not believed, and the server takes nobody in plain text.
        with pytest.raises(OperationalError) as refused:
            await cipher_of(f"{url}{other.authority}")
        assert refused.value.orig is not None
        assert isinstance(refused.value.orig.__cause__, ssl.SSLCertVerificationError)
        with pytest.raises(OperationalError):
            await cipher_of(server.url("ingest"))


async def test_a_server_without_tls_is_not_spoken_to_where_tls_is_asked_for(
    mariadb_server: MariadbServer, tmp_path: Path
) -> None:
    issued = issue_certificates(tmp_path / "tls", ["ingest"], now=datetime.now(UTC))["ingest"]

    with pytest.raises(ConnectionError, match="offers no TLS"):
        await cipher_of(f"{mariadb_server.url('keys')}&ssl_ca={issued.authority}")


async def cipher_of(url: str) -> str:
    """What a connection to the database is sealed with, by the database's own word."""
    database = open_database(url)
    try:
        async with database.read() as snapshot:
            # Only who was granted something on the table gets this far.
            await snapshot.execute(text("SELECT COUNT(*) FROM cron_runs"))
            found = await snapshot.execute(text("SHOW STATUS LIKE 'Ssl_cipher'"))
            cipher: str = found.one()[1]
            return cipher
    finally:
        await database.dispose()


def files_with(directory: Path, words: bytes) -> list[str]:
    return [one.name for one in directory.iterdir() if words in one.read_bytes()]


async def test_sqlite_leaves_nothing_in_its_file_once_it_is_tidied(tmp_path: Path) -> None:
    path = tmp_path / "any.db"
    database = open_database(f"sqlite+aiosqlite:///{path}")
    chance = random.Random(3)  # noqa: S311 - nothing secret
    numbers = list(range(2_000))
    chance.shuffle(numbers)
    async with database.begin() as transaction:
        await transaction.execute(
            text("CREATE TABLE notes (name TEXT PRIMARY KEY, note TEXT) WITHOUT ROWID")
        )
        for number in numbers:
            note = f"planted words {number} " * 5 if number % 2 else "tea " * 20
            await transaction.execute(
                text("INSERT INTO notes VALUES (:name, :note)"), {"name": number, "note": note}
            )
    async with database.begin() as transaction:
        await transaction.execute(text("DELETE FROM notes WHERE note LIKE 'planted%'"))
        await note_untidy(transaction)
    await database.dispose()
    assert files_with(tmp_path, b"planted words") == ["any.db"]

    database = open_database(f"sqlite+aiosqlite:///{path}")
    async with kept_tidy(database):
        found = files_with(tmp_path, b"planted words")
        async with database.read() as snapshot:
            left = await snapshot.scalar(text("SELECT count(*) FROM notes"))
            said = await snapshot.scalar(text("PRAGMA user_version"))
    await database.dispose()

    assert (found, left, said) == ([], 1_000, 0)


async def test_who_reads_meanwhile_has_sqlite_tidied_once_more(tmp_path: Path) -> None:
    path = tmp_path / "any.db"
    database = open_database(f"sqlite+aiosqlite:///{path}")
    async with database.begin() as transaction:
        await transaction.execute(text("CREATE TABLE notes (note TEXT)"))
        await transaction.execute(text("PRAGMA user_version = 1"))

    async def read_said() -> int:
        async with database.read() as snapshot:
            return int(await snapshot.scalar(text("PRAGMA user_version")) or 0)

    async with database.read() as snapshot:
        await snapshot.execute(text("SELECT * FROM notes"))
        await database.tidy()
        assert await read_said() == 1
    async with kept_tidy(database, every_seconds=0.05), asyncio.timeout(10):
        while await read_said():  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.02)
    await database.dispose()
