"""Finds Shoptrail keys in files, by their form and their checksum."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.keys.key_text import hint_of, is_key_text

# What stands around it does not matter: keys are found in the middle of a line, too.
_CANDIDATE = re.compile(rb"(?<![0-9A-Za-z])[psc]k_(?:live|test)_[0-9A-Za-z]{38}(?![0-9A-Za-z])")
_SKIPPED_DIRECTORIES = frozenset({".git", ".venv", "node_modules", "__pycache__"})
_LARGEST_FILE = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """A key that stands in a file."""

    path: str
    line: int
    hint: str
    is_secret: bool
    """Whether it must not stand where others can read."""


def scan(paths: Sequence[Path]) -> Iterator[Finding]:
    """The keys in these files and in all files below these directories.

    Texts that only look like keys are not: their checksums would have to be right. Links,
    files above 64 MiB and the directories of Git, virtual environments and Node packages
    are passed over. Raises `OSError` for a path that can't be read.
    """
    for path in paths:
        for file in _files_below(path) if path.is_dir() else [path]:
            yield from _scan_file(file)


def _files_below(directory: Path) -> Iterator[Path]:
    for parent, directories, names in os.walk(directory):
        directories[:] = sorted(set(directories) - _SKIPPED_DIRECTORIES)
        for name in sorted(names):
            file = Path(parent, name)
            if file.is_file() and not file.is_symlink() and file.stat().st_size <= _LARGEST_FILE:
                yield file


def _scan_file(file: Path) -> Iterator[Finding]:
    content = file.read_bytes()
    for found in _CANDIDATE.finditer(content):
        text = found[0].decode()
        if is_key_text(text):
            yield Finding(
                path=str(file),
                line=content.count(b"\n", 0, found.start()) + 1,
                hint=hint_of(text),
                is_secret=not text.startswith("pk_"),
            )
