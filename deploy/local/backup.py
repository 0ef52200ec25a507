"""Saves and restores what `make run` keeps, while it doesn't run.

python -m deploy.local.backup save shop.backup
python -m deploy.local.backup restore shop.backup
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.backup import RestoreError, Saved, restore, save
from deploy.local import mariadb
from deploy.local.environment import COLUMNS, SERVICES, Secrets, keep_secrets
from deploy.local.mesh import DATABASES, sole_launcher
from deploy.local.private_files import make_private_directory
from deploy.local.processes import StartError
from services.query.duck import remove_columns

KEYS_NAME = "people.keys"


def main() -> int:
    """Save or restore; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.backup", description=__doc__)
    parser.add_argument("what", choices=("save", "restore"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--database", choices=DATABASES, default="sqlite")
    parser.add_argument("--directory", type=Path, default=Path(".run"))
    parser.add_argument(
        "--later", type=Path, action="append", default=[], help="tells who was erased since"
    )
    parser.add_argument(
        "--keys",
        type=Path,
        help="the latest file of people's keys: written to, or read from if it is named"
        f" (default: {KEYS_NAME} beside the backup)",
    )
    arguments = parser.parse_args()
    try:
        saved = asyncio.run(_run(arguments))
    except (StartError, RestoreError, FileNotFoundError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{sum(saved.row_counts.values())} rows in {len(saved.row_counts)} tables\n")
    if saved.unreadable:
        sys.stdout.write(f"{saved.unreadable} rows have no key any more: what may stay is there\n")
    if saved.erased_again:
        sys.stdout.write(f"{saved.erased_again} events of erased people were erased again\n")
    return 0


async def _run(arguments: argparse.Namespace) -> Saved:
    directory = arguments.directory.resolve()
    make_private_directory(directory)
    with sole_launcher(directory):
        secrets = keep_secrets(directory / "secrets.json")
        keys = {service: bytes.fromhex(key) for service, key in secrets.subject_keys.items()}
        async with databases(directory, arguments.database, secrets) as urls:
            if arguments.what == "save":
                return await save(
                    urls,
                    arguments.file,
                    keys=arguments.keys or arguments.file.with_name(KEYS_NAME),
                    subject_key=keys["maintenance"],
                )
            remove_columns(directory / arguments.database / COLUMNS)
            return await restore(
                urls,
                arguments.file,
                subject_keys=keys,
                keys=arguments.keys,
                later=arguments.later,
            )


@asynccontextmanager
async def databases(
    directory: Path, database: str, secrets: Secrets
) -> AsyncIterator[Mapping[str, str]]:
    """The URLs of the services' databases, for who may change tables, while no mesh runs."""
    make_private_directory(directory / database)
    if database == "sqlite":
        yield {
            service: f"sqlite+aiosqlite:///{directory / database / f'{service}.db'}"
            for service in SERVICES
        }
        return
    async with mariadb.running(
        directory / database,
        passwords=secrets.database_passwords,
        migration_passwords=secrets.migration_passwords,
    ) as server:
        yield {service: server.migration_url(service) for service in SERVICES}


if __name__ == "__main__":
    sys.exit(main())
