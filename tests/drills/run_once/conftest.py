"""The stage of the drills, and the table of what they measured."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from common.db import open_database
from common.migrate import upgrade
from common.tls import Certificates
from deploy.local import mariadb, redis
from deploy.local.certificates import issue_certificates
from tests.drills.figures import FULL, Figures, replace_block
from tests.drills.run_once.replica import effects
from tests.drills.run_once.stage import Stage

_DOCUMENT = Path(__file__).parents[3] / "docs" / "reliability.md"
# Replicas whose clocks are an hour behind must find the certificates valid.
_ISSUED_BEFORE = timedelta(hours=2)


@pytest.fixture(scope="session")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Servers of the drills' own, since they are killed."""
    directory = tmp_path_factory.mktemp("drills")
    password = {"maintenance": secrets.token_hex(8)}
    issued = issue_certificates(
        directory / "tls", ["maintenance", "cron"], now=datetime.now(UTC) - _ISSUED_BEFORE
    )
    caller = issued["cron"]
    async with AsyncExitStack() as stack:
        server, redis_server, other_redis = await asyncio.gather(
            stack.enter_async_context(
                mariadb.running(
                    directory / "mariadb", passwords=password, migration_passwords=password
                )
            ),
            stack.enter_async_context(redis.running(directory / "redis", password)),
            stack.enter_async_context(redis.running(directory / "other-redis", password)),
        )
        account = server.account("maintenance")
        await upgrade("maintenance", server.migration_url("maintenance"), grant_to=account)
        migration = create_async_engine(server.migration_url("maintenance"))
        async with migration.begin() as connection:
            await connection.run_sync(effects.metadata.create_all)
            await connection.exec_driver_sql(
                f"GRANT SELECT, INSERT, DELETE ON {effects.name} TO {account}"
            )
        await migration.dispose()
        database = open_database(server.url("maintenance"))
        stack.push_async_callback(database.dispose)
        yield Stage(
            mariadb=server,
            redis=redis_server,
            other_redis=other_redis,
            database=database,
            files=issued["maintenance"],
            certificates=Certificates(
                certificate=caller.certificate.read_bytes(),
                key=caller.key.read_bytes(),
                authority=caller.authority.read_bytes(),
            ),
            log=directory / "replicas.log",
        )


@pytest.fixture
async def stage(servers: Stage) -> AsyncIterator[Stage]:
    """The servers, and no run that is left of another drill."""
    yield servers
    await servers.clear()


@pytest.fixture(scope="session")
async def figures(servers: Stage, request: pytest.FixtureRequest) -> AsyncIterator[Figures]:
    """The drills' table, which goes into the document when all ran at their whole length."""
    table = Figures(
        ["drill", "scheduled times", "calls", "ran once", "attempts", "longest take-over", "lease"]
    )
    yield table
    if FULL and not request.session.testsfailed and not request.config.getoption("keyword"):
        async with servers.database.read() as snapshot:
            version = await snapshot.scalar(text("SELECT VERSION()"))
        replace_block(_DOCUMENT, "figures", table.as_markdown(servers=[f"MariaDB {version}"]))
