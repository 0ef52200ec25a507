"""Opens the journals of a process, one for each shard of the log."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from services.ingest.journal import Journal, JournalNotValid, held_directory
from services.ingest.journaled_writer import JournaledWriter, Room
from services.ingest.log_writer import LogWriter

_SHARD_DIRECTORY = re.compile(r"shard-([0-9]+)")


class Journals:
    """The journals of all shards, which share the room that they may take."""

    def __init__(
        self,
        directory: Path,
        *,
        byte_count: int,
        patience_seconds: float,
        microseconds: Callable[[], int],
    ) -> None:
        self.directory = directory
        self.patience_seconds = patience_seconds
        """How long the log may take before a journal is used instead."""
        self.writers: list[JournaledWriter] = []
        self._room = Room(byte_count)
        self._microseconds = microseconds

    def before(self, log_writer: LogWriter) -> JournaledWriter:
        """A writer that keeps in the shard's journal what the log can't take now.

        Raises `JournalNotValid`, and `OSError` if the journal can't be read.
        """
        journal = Journal(self.directory / f"shard-{log_writer.shard}")
        writer = JournaledWriter(
            log_writer, journal, room=self._room, microseconds=self._microseconds
        )
        self.writers.append(writer)
        return writer

    async def close(self) -> None:
        """Let go of all files. What is in them, the next start moves to the log."""
        await asyncio.gather(*(writer.close() for writer in self.writers))


@asynccontextmanager
async def open_journals(
    directory: Path,
    *,
    byte_count: int,
    shard_count: int,
    microseconds: Callable[[], int],
    patience_seconds: float = 0.5,
) -> AsyncIterator[Journals]:
    """The journals in a directory of this process's own, for the block.

    Raises `JournalNotValid` if another process has it, or if it holds events of a shard that
    there is no more.
    """
    with held_directory(directory):
        _check_shards(directory, shard_count)
        journals = Journals(
            directory,
            byte_count=byte_count,
            patience_seconds=patience_seconds,
            microseconds=microseconds,
        )
        try:
            yield journals
        finally:
            await journals.close()


def _check_shards(directory: Path, shard_count: int) -> None:
    for path in directory.iterdir():
        found = _SHARD_DIRECTORY.fullmatch(path.name)
        if found and int(found[1]) >= shard_count and any(path.glob("*.journal")):
            raise JournalNotValid(
                f"{path} holds events of shard {found[1]}, and there are only {shard_count} "
                "shards now. Start with as many as before, until it is empty."
            )
