"""The stage that drills share, and the table of what they measured."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.drills.faults.drill import COLUMNS, SEED
from tests.drills.faults.stage import Stage, staged
from tests.drills.figures import FULL, Figures, replace_block

_DOCUMENT = Path(__file__).parents[3] / "docs" / "reliability.md"


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
async def table(stage: Stage, request: pytest.FixtureRequest) -> AsyncIterator[Figures]:
    """The drills' table, which goes into the document when all ran at their whole length."""
    table = Figures(COLUMNS)
    yield table
    if FULL and not request.session.testsfailed and not request.config.getoption("keyword"):
        async with stage.root.connect() as connection:
            version = await connection.scalar(text("SELECT VERSION()"))
        measured = table.as_markdown(servers=[f"MariaDB {version}"])
        replace_block(_DOCUMENT, "faults", f"{measured}\nSeed {SEED}.\n")
