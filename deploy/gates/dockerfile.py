"""Does what a Dockerfile says, without a container engine: each stage in a directory of its own.

Knows the instructions that ours has, and refuses others. Programs are this machine's, so a stage's
base decides nothing here; `RUN` works in the stage's work directory and must not leave it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_IGNORED = ("ARG", "USER")


@dataclass
class Stage:
    """A directory, and what it is run with."""

    root: Path
    workdir: Path = Path("/")
    environment: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def inside(self, path: str) -> Path:
        """Where a path of the image is on this machine."""
        return self.root / (self.workdir / path).relative_to("/")


def build(dockerfile: Path, context: Path, scratch: Path, *, programs: Path) -> Stage:
    """Build the image's last stage under `scratch`; raises where a step fails.

    Programs are looked for in the directory `programs` first.
    """
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    stages: dict[str, Stage] = {}
    stage = Stage(scratch / "none")
    for instruction, rest in _instructions(dockerfile.read_text()):
        if instruction == "FROM":
            _, _, name = rest.partition(" AS ")
            stage = Stage(scratch / (name or "image"))
            stage.root.mkdir(parents=True)
            stages[name] = stage
        elif instruction == "WORKDIR":
            stage.workdir = Path(rest)
            stage.inside(".").mkdir(parents=True, exist_ok=True)
        elif instruction == "COPY":
            _copy(rest, context, stages, stage)
        elif instruction == "RUN":
            subprocess.run(  # noqa: S602 - the Dockerfile is ours
                rest, shell=True, cwd=stage.inside("."), check=True, env=environment
            )
        elif instruction == "ENV":
            stage.environment |= dict(word.split("=", 1) for word in shlex.split(rest))
        elif instruction == "ENTRYPOINT":
            stage.entrypoint = json.loads(rest)
        elif instruction == "CMD":
            stage.command = json.loads(rest)
        elif instruction not in _IGNORED:
            raise ValueError(f"{instruction} is not known here")
    return stage


def _instructions(text: str) -> list[tuple[str, str]]:
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", "", lines)
    found = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(instruction, rest) for instruction, rest in found]


def _copy(rest: str, context: Path, stages: dict[str, Stage], stage: Stage) -> None:
    words = rest.split()
    origin = context
    copy: Callable[..., object] = shutil.copy2
    ignored = shutil.ignore_patterns("__pycache__", "node_modules", "dist", "openapi.json")
    if words[0].startswith("--from="):
        origin, copy = stages[words.pop(0).removeprefix("--from=")].root, os.link
        ignored = shutil.ignore_patterns()
    *sources, target = words
    for source in sources:
        found = origin / source.lstrip("/")
        place = stage.inside(target)
        if found.is_dir():
            # A directory's content is copied, and not the directory.
            shutil.copytree(
                found,
                place,
                dirs_exist_ok=True,
                copy_function=copy,
                ignore=ignored,
            )
        else:
            place = place / found.name if target.endswith("/") else place
            place.parent.mkdir(parents=True, exist_ok=True)
            copy(found, place)
