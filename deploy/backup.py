"""Saves what the services keep to a file, and puts it back: on SQLite and on MySQL alike.

What is saved is rows, not files, so a backup of one kind of database can be restored to the
other. Each service's tables are one snapshot. Query is saved before Ingest: it may be behind
the log and never ahead of it. Of its figures only those are saved that the log can't give any
more; it makes the others anew.

Rows that tell of a person are sealed under the person's own key, which is no part of the
backup and destroyed when they are erased. Who was erased since the backup was made is erased
again after a restore, and who was kept out stays out. Both is known from the database that is
replaced, as keyed hashes of ids; if that is lost, from a later backup.
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
from deploy.local.private_files import write_private
from deploy.sealing import SEALED, Keyring, RowOpener, RowSealer
from services.ingest.erasing_again import erase_again
from services.ingest.subjects import SubjectDigests
from services.ingest.tables import log_heads, suppressions
from services.maintenance.subject import SubjectKeyNames
from services.query.change_repository import CARRIED, carry_over
from services.query.repository import add_first_generation, find_live_generation

ORDER = ("keys", "maintenance", "query", "ingest")
"""In which services are saved."""

# What would bring back what was told to be gone, means nothing elsewhere, or is made anew.
_LEFT_OUT = {
    *("archive_parts", "subject_keys", "column_copies", "cron_runs", "cron_fences"),
    *("event_people", "people_cursors", "purged_stores"),
    *("generations", "generation_cursors", "recorded_events", "listed_changes", "silent_events"),
}
# What stays there when a backup is restored.
_LEFT_THERE = {"subject_keys"}
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
    unreadable: int = 0
    """How many rows had no key any more: of events, what may stay of them was restored."""


async def save(urls: Mapping[str, str], path: Path, *, keys: Path, subject_key: bytes) -> Saved:
    """Write all rows of the services, by the URLs of their databases, to a file of mode 0600.

    `urls` are of users who may change tables; none of the services may run. `keys` is replaced
    by a file of all keys there are, with which this backup and those before can be read.
    `subject_key` is Maintenance's.
    """
    counts: dict[str, int] = {}
    revisions: dict[str, str] = {}
    draft = path.with_name(f".{path.name}.draft")
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    async with _opened(urls["maintenance"]) as of_keys:
        keyring = Keyring(of_keys, SubjectKeyNames(subject_key))
        sealer = RowSealer(keyring)
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
                        name = f"{service}.{table.name}"
                        with archive.open(_member(name), "w", force_zip64=True) as member:
                            counts[name] = 0
                            async for rows in _batches_of(snapshot, table):
                                entries = await sealer.seal(name, table, rows)
                                encoded = msgspec.msgpack.encode(entries)
                                member.write(len(encoded).to_bytes(_LENGTH_BYTES) + encoded)
                                counts[name] += len(entries)
            manifest = {"time": time, "revisions": revisions, "row_counts": counts}
            archive.writestr(_MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
        # First, since a backup without its keys is none.
        write_private(keys, msgspec.msgpack.encode(await keyring.list_all()))
    draft.replace(path)
    return Saved(counts)


async def restore(
    urls: Mapping[str, str],
    path: Path,
    *,
    subject_keys: Mapping[str, bytes],
    keys: Path | None = None,
    later: Sequence[Path] = (),
) -> Saved:
    """Put all rows in the place of those that are there, and erase again who was erased since.

    `urls` are of users who may change tables; none of the services may run. `subject_keys` are
    those of Ingest and of Maintenance. `keys` is the latest file of keys; without one, they are
    taken from the database that is replaced. `later` are backups that were made later, of which
    only is read who was erased. Raises `RestoreError` if the backup is of another version's
    tables, or there are no keys at all.
    """
    suppressed = _Suppressed()
    suppressed.add(await _list_suppressions(urls["ingest"]))
    for one in (path, *later):
        with zipfile.ZipFile(one) as archive:
            for rows in _batches_in(archive, "ingest/suppressions"):
                suppressed.add(rows)
    for service in ORDER:
        await upgrade(service, urls[service])
    async with _opened(urls["maintenance"]) as of_keys:
        keyring = Keyring(of_keys, SubjectKeyNames(subject_keys["maintenance"]))
        if keys is not None:
            await keyring.replace_all(_read_keys(keys))
        opener = RowOpener(keyring)
        with zipfile.ZipFile(path) as archive:
            await _look(archive, opener)
            if opener.unreadable_count and not opener.readable_count and keys is None:
                raise RestoreError("there is no key that opens anything: name the file of keys")
            counts: dict[str, int] = {}
            for service in ORDER:
                counts |= await _restore_service(service, urls[service], archive, opener)
    again = await _erase_again(urls["ingest"], suppressed, SubjectDigests(subject_keys["ingest"]))
    return Saved(counts, again, opener.unreadable_count)


def _read_keys(path: Path) -> list[tuple[str, bytes, bytes]]:
    return msgspec.msgpack.decode(path.read_bytes(), type=list[tuple[str, bytes, bytes]])


async def _look(archive: zipfile.ZipFile, opener: RowOpener) -> None:
    for service in ORDER:
        for table in _tables_of(service):
            name = f"{service}.{table.name}"
            if name in SEALED:
                for entries in _batches_in(archive, _member(name)):
                    await opener.look(name, table, entries)


async def _restore_service(
    service: str, url: str, archive: zipfile.ZipFile, opener: RowOpener
) -> dict[str, int]:
    """Put a service's rows in the place of those that are there; returns how many, by table."""
    counts: dict[str, int] = {}
    expected = msgspec.json.decode(archive.read(_MANIFEST))["revisions"][service]
    async with _opened(url) as database, database.begin() as transaction:
        revision = await _revision_of(transaction)
        if revision != expected:
            raise RestoreError(
                f"{service} is at revision {revision}, and the backup of {expected}:"
                " restore it with that version first"
            )
        # Those first that refer to others.
        for table in reversed(_tables_of(service, left_out=False)):
            if table.name not in _LEFT_THERE:
                await transaction.execute(table.delete())
        for table in _tables_of(service):
            name = f"{service}.{table.name}"
            counts[name] = 0
            for entries in _batches_in(archive, _member(name)):
                rows = await opener.open(name, table, entries)
                if rows:
                    await transaction.execute(insert(table), rows)
                counts[name] += len(rows)
        if service == "query":
            await add_first_generation(transaction)
            await carry_over(transaction, await find_live_generation(transaction))
    return counts


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


def _member(name: str) -> str:
    return name.replace(".", "/")


async def _batches_of(snapshot: AsyncConnection, table: Table) -> AsyncIterator[list[list[Any]]]:
    statement = select(table).order_by(*table.primary_key.columns)
    if "generation" in table.columns:
        statement = statement.where(table.columns["generation"] == CARRIED)
    rows = await snapshot.stream(statement)
    async for some in rows.partitions(_ROWS):
        yield [list(row) for row in some]


def _batches_in(archive: zipfile.ZipFile, name: str) -> Iterator[list[list[Any]]]:
    with archive.open(name) as member:
        while length := member.read(_LENGTH_BYTES):
            yield msgspec.msgpack.decode(member.read(int.from_bytes(length)))
