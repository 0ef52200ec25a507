"""Brings a service's own database to the schema that its code expects.

    python -m common.migrate ingest

reads `INGEST_MIGRATION_DATABASE_URL`, applies what is missing of
`services/ingest/migrations/versions` and ends with 0 when nothing is. On MySQL, the user that
`INGEST_GRANT_TO` names, such as `'ingest'@'%'`, may then do with each table what the service
needs to, and nothing else. Leave it empty where users can't be granted single tables.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import re
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.ext.asyncio import create_async_engine

from common.db import VERBS, open_mysql
from common.log import start_logging

SERVICES = ("ingest", "keys", "maintenance", "query")
_LOCK_SECONDS = 60
_ALL_VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE")
_ACCOUNT = re.compile(r"'[\w.-]{1,32}'@'[\w.%:/-]{1,60}'")

log = logging.getLogger(__name__)


async def upgrade(service: str, url: str, *, grant_to: str = "") -> None:
    """Apply the service's migrations to the database at `url`; none if it is up to date.

    Then let the account `grant_to`, if there is one, do what the service needs to.
    """
    if url.startswith("sqlite"):
        engine = create_async_engine(url, hide_parameters=True)
    else:
        engine = open_mysql(url, connect_args={})
    try:
        async with engine.connect() as connection:
            is_sqlite = connection.dialect.name == "sqlite"
            if not is_sqlite:
                # MySQL commits each DDL statement by itself: two migrators would interleave.
                lock = {"name": f"migrate-{service}", "seconds": _LOCK_SECONDS}
                got = await connection.scalar(text("SELECT GET_LOCK(:name, :seconds)"), lock)
                if got != 1:
                    raise TimeoutError("another migration has been running for a minute")
            await connection.run_sync(_upgrade, service)
            await connection.commit()
            if grant_to and not is_sqlite:
                for statement in grants_of(service, grant_to):
                    # An account may be of any host, '%': to the driver a value's place.
                    await connection.exec_driver_sql(statement.replace("%", "%%"))
    finally:
        await engine.dispose()


def grants_of(service: str, account: str) -> list[str]:
    """The statements that let the account do what the service needs to; for MySQL.

    Raises `ValueError` if the account is not of the form `'name'@'host'`.
    """
    if not _ACCOUNT.fullmatch(account):
        raise ValueError("an account is written as 'name'@'host'")
    return [
        f"GRANT {', '.join(table.info.get(VERBS, _ALL_VERBS))} ON `{table.name}` TO {account}"
        for table in metadata_of(service).sorted_tables
    ]


def metadata_of(service: str) -> MetaData:
    """What the service's code expects of its database."""
    metadata: MetaData = importlib.import_module(f"services.{service}.tables").metadata
    return metadata


def run_migrations(metadata: MetaData) -> None:
    """What each service's `migrations/env.py` does: run over the connection it was given."""
    from alembic import context  # Alembic has a context only while it runs.

    context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()


def config_of(service: str, connection: Connection) -> Config:
    """Alembic's configuration for a service, over an open connection."""
    config = Config()
    location = Path(__file__).parent.parent / "services" / service / "migrations"
    config.set_main_option("script_location", str(location))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection, service: str) -> None:
    command.upgrade(config_of(service, connection), "head")


def main() -> None:
    """Migrate the service named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m common.migrate", description=__doc__)
    parser.add_argument("service", choices=SERVICES, help="whose database")
    service: str = parser.parse_args().service
    variable = f"{service.upper()}_MIGRATION_DATABASE_URL"
    url = os.environ.get(variable)
    if not url:
        raise SystemExit(f"{variable} is not set: the database to migrate, as a SQLAlchemy URL")
    start_logging(f"migrate-{service}", "info")
    asyncio.run(upgrade(service, url, grant_to=os.environ.get(f"{service.upper()}_GRANT_TO", "")))
    log.info("schema is up to date", extra={"service": service})


if __name__ == "__main__":
    main()
