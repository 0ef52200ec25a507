"""What the migrations make is what the code expects."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from common.db import open_database
from common.migrate import SERVICES, config_of, metadata_of, upgrade
from deploy.local.mariadb import MariadbServer


def differences(connection: Connection, metadata: MetaData) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, metadata))


@pytest.mark.parametrize("service", SERVICES)
async def test_migrations_and_tables_agree_on_mariadb(
    service: str, mariadb_server: MariadbServer
) -> None:
    metadata = metadata_of(service)
    engine = create_async_engine(mariadb_server.migration_url(service))
    async with engine.connect() as connection:
        assert await connection.run_sync(differences, metadata) == []
    await engine.dispose()


@pytest.mark.parametrize("service", SERVICES)
async def test_migrations_make_all_tables_and_columns_on_sqlite(
    service: str, tmp_path: Path
) -> None:
    metadata = metadata_of(service)
    url = f"sqlite+aiosqlite:///{tmp_path / 'fresh.db'}"
    await upgrade(service, url)
    await upgrade(service, url)  # A second time changes nothing.
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        found = await connection.run_sync(differences, metadata)
    await engine.dispose()

    # SQLite keeps no exact types; what is there must be all, and no more.
    assert [difference for difference in found if isinstance(difference, tuple)] == []


@pytest.mark.parametrize("service", SERVICES)
async def test_a_revision_is_one_statement_and_the_history_one_line(
    service: str, tmp_path: Path
) -> None:
    database = open_database(f"sqlite+aiosqlite:///{tmp_path / 'unused.db'}")
    async with database.read() as connection:
        script = await connection.run_sync(
            lambda sync: ScriptDirectory.from_config(config_of(service, sync))
        )
    await database.dispose()

    assert len(script.get_heads()) == 1
    for revision in script.walk_revisions():
        check_revision(Path(revision.path).read_text(), revision.path)  # noqa: ASYNC240


def check_revision(source: str, path: str) -> None:
    assert source.count("    op.") == 1, f"{path} must be one statement"
    assert "downgrade" not in source, f"{path}: migrations go forwards only"
    assert "from common" not in source, f"{path} must be literal"
    assert "from services" not in source, f"{path} must be literal"
