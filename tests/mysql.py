"""A MySQL that is there already, for the tests that else have a MariaDB of their own."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiomysql
from sqlalchemy import make_url

from deploy.local.mariadb import MariadbServer, accounts_of
from deploy.local.processes import Child, Program


@asynccontextmanager
async def borrowed(
    address: str, log: Path, *, passwords: Mapping[str, str]
) -> AsyncIterator[MariadbServer]:
    """The server at `root:password@host:port`, with a new schema and users for each service.

    What it had under their names is dropped. It is nobody's child here, so no test may stop it.
    """
    url = make_url(f"mysql://{address}")
    host, port = url.host or "127.0.0.1", url.port or 3306
    connection = await aiomysql.connect(
        host=host, port=port, user=url.username or "root", password=str(url.password or "")
    )
    statements = accounts_of("%", passwords, passwords)
    lines = [line for line in statements.splitlines() if not line.startswith("--")]
    async with connection.cursor() as cursor:
        for service in passwords:
            await cursor.execute(f"DROP DATABASE IF EXISTS `{service}`")
        for statement in "\n".join(lines).split(";"):
            if statement.strip():
                await cursor.execute(statement)
    await connection.ensure_closed()
    nobody = Child(Program(name="mysql", arguments=(sys.executable, "-c", ""), log=log))
    yield MariadbServer(
        port,
        passwords,
        passwords,
        nobody,
        host=host,
        client_host="%",
    )
