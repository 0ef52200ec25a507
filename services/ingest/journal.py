"""Keeps records in files until they are wanted again: the form that they have, and the files.

A record is there once its bytes and their checksum are on the disk. What a crash left
unfinished at the end was never confirmed, and is cut off; whatever else can't be read is
copied to a place of its own and reported.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

SEGMENT_BYTES = 8 * 1024 * 1024
"""The size from which on a new file is begun."""

# marker, length of the body, sequence, microseconds since 1970, checksum of the body
_HEAD = struct.Struct(">4sIQQI")
_CHECKSUM = struct.Struct(">I")
_MARKER = b"\xf0JR\x01"  # No UTF-8 text holds it.
HEAD_BYTES = _HEAD.size + _CHECKSUM.size
_SUFFIX = ".journal"


@dataclass(frozen=True, slots=True)
class Record:
    """What was appended, and where it stands."""

    sequence: int
    """Greater than that of all records before it."""
    microseconds: int
    """When it was appended, since 1970."""
    body: bytes
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that were a record once, or several."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Torn:
    """Where a record begins that was never finished. Nothing follows it."""

    begin: int


def encode_record(seed: int, sequence: int, microseconds: int, body: bytes) -> bytes:
    """A record as it stands in a file. `seed` is that of all checksums of the journal."""
    head = _HEAD.pack(_MARKER, len(body), sequence, microseconds, zlib.crc32(body, seed))
    return head + _CHECKSUM.pack(zlib.crc32(head, seed)) + body


def scan(seed: int, segment: bytes, *, begin: int = 0) -> Iterator[Record | Damage | Torn]:
    """What a file holds from a place on, every byte of it told of once, in order."""
    place = begin
    while place < len(segment):
        record = _read_record(seed, segment, place)
        if record is not None:
            yield record
            place = record.end
            continue
        found = _find_record(seed, segment, place + 1)
        if found is not None:
            yield Damage(place, found)
            place = found
            continue
        if _is_torn(seed, segment, place):
            yield Torn(place)
        else:
            yield Damage(place, len(segment))
        return


def _read_record(seed: int, segment: bytes, place: int) -> Record | None:
    head = _read_head(seed, segment, place)
    if head is None:
        return None
    length, sequence, microseconds, checksum = head
    begin = place + HEAD_BYTES
    body = segment[begin : begin + length]
    if len(body) < length or zlib.crc32(body, seed) != checksum:
        return None
    return Record(sequence, microseconds, body, place, begin + length)


def _read_head(seed: int, segment: bytes, place: int) -> tuple[int, int, int, int] | None:
    head = segment[place : place + HEAD_BYTES]
    if len(head) < HEAD_BYTES:
        return None
    (checksum,) = _CHECKSUM.unpack_from(head, _HEAD.size)
    if zlib.crc32(head[: _HEAD.size], seed) != checksum:
        return None
    marker, length, sequence, microseconds, body_checksum = _HEAD.unpack_from(head)
    return (length, sequence, microseconds, body_checksum) if marker == _MARKER else None


def _find_record(seed: int, segment: bytes, begin: int) -> int | None:
    """Where the next whole record begins. What a sender wrote can't pass for one: the seed."""
    place = segment.find(_MARKER, begin)
    while place >= 0:
        if _read_record(seed, segment, place) is not None:
            return place
        place = segment.find(_MARKER, place + 1)
    return None


def _is_torn(seed: int, segment: bytes, place: int) -> bool:
    """Whether the rest is what a crash leaves: the beginning of a record, or room for one."""
    rest = segment[place : place + HEAD_BYTES]
    if len(rest) < HEAD_BYTES:
        return _MARKER.startswith(rest[: len(_MARKER)]) or not any(rest)
    head = _read_head(seed, segment, place)
    if head is not None:
        return len(segment) - place - HEAD_BYTES < head[0]
    return not segment[place:].strip(b"\0")


class JournalNotValid(Exception):
    """The directory is in use, or holds what is no journal of its own. The message says which."""


@dataclass(slots=True)
class _Segment:
    path: Path
    byte_count: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A record that waits to be worked off."""

    sequence: int
    body: bytes
    segment: Path = field(repr=False)
    end: int = field(repr=False)


class Journal:
    """A sequence of records in a directory of its own. One thread at a time may use it."""

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Open what the directory holds, and cut off what was never finished.

        Raises `JournalNotValid`, and `OSError` if the files can't be read.
        """
        self.uid = b""
        """Of the records that are there: new after the journal was empty."""
        self.last_sequence = 0
        self.oldest_microseconds: int | None = None
        """When the first record of those that are there was appended."""
        self.aside_count = 0
        """How many damaged places were set aside."""
        self.missing_count = 0
        """How many records are not where they should be."""
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._seed = 0
        self._segments: list[_Segment] = []
        self._place = 0  # in the first segment
        self._next_sequence = 1
        self._file: int | None = None
        self._told: set[Path] = set()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._open()

    @property
    def byte_count(self) -> int:
        """How much of the disk the records take."""
        return sum(segment.byte_count for segment in self._segments)

    @property
    def is_empty(self) -> bool:
        """Whether no record waits."""
        return not self._segments

    def append(self, bodies: Sequence[bytes], *, microseconds: int) -> None:
        """Add records, which are on the disk when this returns.

        Raises `OSError` if they can't be written; then none of them is there.
        """
        if not self._segments:
            self._begin(secrets.token_bytes(16))
        if self._file is None or self._segments[-1].byte_count >= self._segment_bytes:
            self._begin_segment()
        segment = self._segments[-1]
        text = b"".join(
            encode_record(self._seed, sequence, microseconds, body)
            for sequence, body in enumerate(bodies, self._next_sequence)
        )
        # Taken for good: should these bytes outlive a failure, no others may have their numbers.
        self._next_sequence += len(bodies)
        assert self._file is not None  # noqa: S101 - for the type checker
        try:
            _write_all(self._file, text)
            os.fdatasync(self._file)
        except OSError:
            self._abandon_segment(segment)
            raise
        segment.byte_count += len(text)
        self.last_sequence = self._next_sequence - 1
        if self.oldest_microseconds is None:
            self.oldest_microseconds = microseconds

    def read(self, *, most_records: int, most_bytes: int) -> list[Entry]:
        """The first records that wait, at least one if there are any, and none past the limits."""
        entries: list[Entry] = []
        byte_count = 0
        for number, segment in enumerate(self._segments):
            for record in self._records_of(segment, begin=0 if number else self._place):
                byte_count += len(record.body)
                if entries and (len(entries) == most_records or byte_count > most_bytes):
                    return entries
                if not entries:
                    self.oldest_microseconds = record.microseconds
                entries.append(Entry(record.sequence, record.body, segment.path, record.end))
        return entries

    def forget(self, last: Entry | None) -> None:
        """Remove all records up to this one, or all that there are."""
        if last is None or last.sequence >= self.last_sequence:
            self._close()
            while self._segments:
                self._segments.pop(0).path.unlink()
            self._begin(b"")
            return
        while self._segments[0].path != last.segment:
            self._segments.pop(0).path.unlink()
            self._place = 0
        self._place = last.end

    def set_aside(self, entry: Entry) -> None:
        """Copy a record that can't be worked off to where somebody can look at it."""
        self._put_aside(entry.segment, entry.end - len(entry.body), entry.body)

    def close(self) -> None:
        """Let go of the files."""
        self._close()

    def _begin(self, uid: bytes) -> None:
        self.uid = uid
        self._seed = zlib.crc32(uid)
        self.last_sequence = self._place = 0
        self._next_sequence = 1
        self.oldest_microseconds = None

    def _open(self) -> None:
        paths = sorted(self._directory.glob(f"*{_SUFFIX}"))
        if not paths:
            return
        uids = {path.name.partition("-")[0] for path in paths}
        try:
            (uid,) = uids
            self._begin(bytes.fromhex(uid))
        except ValueError:
            raise JournalNotValid(
                f"{self._directory} must hold the files of one journal, and holds those of "
                f"{', '.join(sorted(uids))}. Give each an Ingest of its own."
            ) from None
        self._segments = [_Segment(path, path.stat().st_size) for path in paths]
        for segment in list(self._segments):
            _, first, previous = segment.path.stem.split("-")
            if self.last_sequence:
                self.missing_count += max(0, int(previous, 16) - self.last_sequence)
            expected = int(first, 16)
            for record in self._records_of(segment, begin=0):
                if self.oldest_microseconds is None:
                    self.oldest_microseconds = record.microseconds
                self.missing_count += record.sequence - expected
                self.last_sequence = record.sequence
                expected = record.sequence + 1
            if not segment.byte_count:
                segment.path.unlink()
                self._segments.remove(segment)
        self._next_sequence = self.last_sequence + 1
        if not self.last_sequence:  # Nothing in them can be read.
            self.forget(None)

    def _records_of(self, segment: _Segment, *, begin: int) -> Iterator[Record]:
        """The segment's records; what else is in it is set aside, or cut off."""
        content = segment.path.read_bytes()[: segment.byte_count]
        for piece in scan(self._seed, content, begin=begin):
            match piece:
                case Record():
                    yield piece
                case Damage():
                    self._put_aside(segment.path, piece.begin, content[piece.begin : piece.end])
                case Torn():
                    os.truncate(segment.path, piece.begin)
                    segment.byte_count = piece.begin

    def _put_aside(self, segment: Path, begin: int, content: bytes) -> None:
        aside = self._directory / "aside" / f"{segment.stem}-{begin}"
        if aside in self._told:
            return
        aside.parent.mkdir(mode=0o700, exist_ok=True)
        with open(aside, "wb") as file:  # noqa: PTH123 - its descriptor is needed
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._told.add(aside)
        self.aside_count += 1

    def _begin_segment(self) -> None:
        self._close()
        # The name says which record comes before, so that a file that is missing is missed.
        numbers = f"{self._next_sequence:016x}-{self.last_sequence:016x}"
        path = self._directory / f"{self.uid.hex()}-{numbers}{_SUFFIX}"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            _sync_directory(self._directory)
        except OSError:
            self._close()
            path.unlink()
            raise
        self._segments.append(_Segment(path, 0))

    def _abandon_segment(self, segment: _Segment) -> None:
        """Take back what was written of the last records, and write no more to this file.

        After a failed sync nobody knows what of it is on the disk.
        """
        with suppress(OSError):
            os.truncate(segment.path, segment.byte_count)
            if not segment.byte_count:
                segment.path.unlink()
        self._close()
        if not segment.byte_count:
            self._segments.remove(segment)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


@contextmanager
def held_directory(directory: Path) -> Iterator[None]:
    """Keep other processes out of the directory for the block. The kernel ends it with us.

    Raises `JournalNotValid` if another has it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalNotValid(
                f"Another process has {directory}. Each Ingest needs a directory of its own."
            ) from None
        yield


def _write_all(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
