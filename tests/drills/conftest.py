"""The mesh that drills share, and the library that sets clocks wrong."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.drills.faults.stage import Stage, staged


@pytest.fixture(scope="session")
def drill_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where stages have their files."""
    directory = tmp_path_factory.mktemp("faults")
    for name in ("shared", "other"):
        (directory / name).mkdir()
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
async def stage(drill_directory: Path) -> AsyncIterator[Stage]:
    """A mesh for all drills that leave it as they found it."""
    async with staged(drill_directory / "shared") as stage:
        yield stage


@pytest.fixture(scope="session")
def libfaketime() -> str:
    """The library that gives a process another clock."""
    found = [
        path
        for root in ("/usr/lib", "/usr/local/lib")
        for pattern in ("faketime/libfaketime.so.1", "*/faketime/libfaketime.so.1")
        for path in sorted(Path(root).glob(pattern))
    ]
    assert found, "libfaketime is missing: run `make libfaketime`."
    return str(found[0])
