"""Saves what the services keep to a file, and puts it back: on SQLite and on MySQL alike.

What is saved is rows, not files, so a backup of one kind of database can be restored to the
other. Each service's tables are one snapshot. Query is saved before Ingest: it may be behind
the log and never ahead of it.

Who was erased since the backup was made is erased again after a restore, and who was kept out
stays out. Both is known from the database that is replaced, as keyed hashes of ids; if that is
lost, from a later backup.
"""

from __future__ import annotations

import importlib
import os
import zipfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import MetaData, Table, insert, select, text, update
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from common.db import Database, database_now, open_database
from common.migrate import upgrade
from services.ingest.erasing_again import erase_again
from services.ingest.subjects import SubjectDigests
from services.ingest.tables import log_heads, suppressions

ORDER = ("keys", "maintenance", "query", "ingest")
"""In which services are saved."""

# What would bring back what was told to be gone, or means nothing elsewhere.
_LEFT_OUT = {"archive_parts", "column_copies", "cron_runs", "cron_fences"}
_ROWS = 500
_LENGTH_BYTES = 4
_MANIFEST = "manifest.json"


class RestoreError(Exception):
    """The backup can't be restored there; the message says why."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What was saved or restored."""

    row_counts: dict[str, int]
    """By table, with its service."""
    erased_again: int = 0
    """How many events were erased again after a restore."""


async def save(urls: Mapping[str, str], path: Path) -> Saved:
    """Write all rows of the services, by the URLs of their databases, to a file of mode 0600."""
    counts: dict[str, int] = {}
    revisions: dict[str, str] = {}
    draft = path.with_name(f".{path.name}.draft")
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    with (
        os.fdopen(descriptor, "w+b") as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        time: datetime | None = None
        for service in ORDER:
            async with _opened(urls[service]) as database, database.read() as snapshot:
                time = time or await database_now(snapshot)
                revisions[service] = await _revision_of(snapshot)
                for table in _tables_of(service):
                    with archive.open(f"{service}/{table.name}", "w", force_zip64=True) as member:
                        count = 0
                        async for rows in _batches_of(snapshot, table):
                            encoded = msgspec.msgpack.encode(rows)
                            member.write(len(encoded).to_bytes(_LENGTH_BYTES) + encoded)
                            count += len(rows)
                    counts[f"{service}.{table.name}"] = count
        manifest = {"time": time, "revisions": revisions, "row_counts": counts}
        archive.writestr(_MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
    draft.replace(path)
    return Saved(counts)


async def restore(
    urls: Mapping[str, str],
    path: Path,
    *,
    subject_key: bytes,
    later: Sequence[Path] = (),
) -> Saved:
    """Put all rows in the place of those that are there, and erase again who was erased since.

    `urls` are of users who may change tables; none of the services may run. `later` are backups
    that were made later, of which only is read who was erased. Raises `RestoreError` if the
    backup is of another version's tables.
    """
    suppressed = _Suppressed()
    suppressed.add(await _list_suppressions(urls["ingest"]))
    for one in (path, *later):
        with zipfile.ZipFile(one) as archive:
            for rows in _batches_in(archive, "ingest/suppressions"):
                suppressed.add(rows)
    counts: dict[str, int] = {}
    with zipfile.ZipFile(path) as archive:
        manifest = msgspec.json.decode(archive.read(_MANIFEST))
        for service in ORDER:
            await upgrade(service, urls[service])
            async with _opened(urls[service]) as database, database.begin() as transaction:
                revision = await _revision_of(transaction)
                if revision != manifest["revisions"][service]:
                    raise RestoreError(
                        f"{service} is at revision {revision}, and the backup of"
                        f" {manifest['revisions'][service]}: restore it with that version first"
                    )
                for table in _tables_of(service, left_out=False):
                    await transaction.execute(table.delete())
                for table in _tables_of(service):
                    names = [column.name for column in table.columns]
                    count = 0
                    for rows in _batches_in(archive, f"{service}/{table.name}"):
                        await transaction.execute(
                            insert(table), [dict(zip(names, row, strict=True)) for row in rows]
                        )
                        count += len(rows)
                    counts[f"{service}.{table.name}"] = count
    again = await _erase_again(urls["ingest"], suppressed, SubjectDigests(subject_key))
    return Saved(counts, again)


class _Suppressed:
    """Who is kept out, and who was erased, by what was written down of them last."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, bytes], dict[str, Any]] = {}

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        names = [column.name for column in suppressions.columns]
        for values in rows:
            row = dict(zip(names, values, strict=True))
            key = row["store_uid"], row["digest"]
            known = self._rows.get(key)
            if known is None or known["change_time"] <= row["change_time"]:
                self._rows[key] = row

    async def write(self, transaction: AsyncConnection) -> None:
        """Put them in the place of those in the database, which may be of before."""
        await transaction.execute(suppressions.delete())
        revisions: dict[int, int] = {}
        for row in self._rows.values():
            revisions[row["shard"]] = max(revisions.get(row["shard"], 0), row["revision"])
        if self._rows:
            await transaction.execute(insert(suppressions), list(self._rows.values()))
        for shard, revision in sorted(revisions.items()):
            await transaction.execute(
                update(log_heads)
                .where(log_heads.c.shard == shard)
                .values(suppression_revision=revision + 1)
            )


async def _list_suppressions(url: str) -> list[Sequence[Any]]:
    """What the database that is about to be replaced says; nothing if that is lost."""
    try:
        async with _opened(url) as database, database.read() as snapshot:
            return [tuple(row) for row in await snapshot.execute(select(suppressions))]
    except (OperationalError, ProgrammingError):
        return []


async def _erase_again(url: str, suppressed: _Suppressed, digests: SubjectDigests) -> int:
    count = 0
    async with _opened(url) as database:
        async with database.begin() as transaction:
            await suppressed.write(transaction)
            now = await database_now(transaction)
        cursor = ""
        while True:
            async with database.begin() as transaction:
                batch = await erase_again(digests)(transaction, cursor=cursor, now=now)
            count += batch.row_count
            cursor = batch.cursor
            if batch.done:
                return count


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    database = open_database(url)
    try:
        yield database
    finally:
        await database.dispose()


def _tables_of(service: str, *, left_out: bool = True) -> list[Table]:
    metadata: MetaData = importlib.import_module(f"services.{service}.tables").metadata
    return [
        table for table in metadata.sorted_tables if not left_out or table.name not in _LEFT_OUT
    ]


async def _revision_of(transaction: AsyncConnection) -> str:
    return str(await transaction.scalar(text("SELECT version_num FROM alembic_version")))


async def _batches_of(snapshot: AsyncConnection, table: Table) -> AsyncIterator[list[list[Any]]]:
    rows = await snapshot.stream(select(table).order_by(*table.primary_key.columns))
    async for some in rows.partitions(_ROWS):
        yield [list(row) for row in some]


def _batches_in(archive: zipfile.ZipFile, name: str) -> Iterator[list[list[Any]]]:
    with archive.open(name) as member:
        while length := member.read(_LENGTH_BYTES):
            yield msgspec.msgpack.decode(member.read(int.from_bytes(length)))
