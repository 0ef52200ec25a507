"""The table of what the drills measured."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.drills.faults.drill import COLUMNS, SEED
from tests.drills.faults.stage import Stage
from tests.drills.figures import FULL, Figures, replace_block

_DOCUMENT = Path(__file__).parents[3] / "docs" / "reliability.md"


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
