"""What a measurement was made on, and what its processes cost."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PACKAGES = ("grpcio", "protobuf", "httptools", "uvloop", "SQLAlchemy", "aiomysql", "msgspec")


def describe_run() -> str:
    """Date, commit, machine and versions, in a line each."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    server = _first_line("/usr/sbin/mariadbd", "--version").partition("Ver ")[2].split(" ")[0]
    changed = " with changes" if _first_line("git", "status", "--porcelain") else ""
    return "\n".join(
        [
            f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit "
            f"{_first_line('git', 'rev-parse', '--short', 'HEAD')}{changed}",
            f"- {os.cpu_count()} × {_processor()}, {platform.system()} {platform.release()}; load "
            "generator, gateway, services and database share them",
            f"- Python {platform.python_version()}, {versions}, MariaDB {server}",
        ]
    )


def processor_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """What each process has used of the processor so far, in seconds."""
    used = {}
    for name, pid in pids.items():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used[name] = (int(fields[11]) + int(fields[12])) / _TICKS
    return used


def resident_bytes(pid: int) -> int:
    """How much memory the process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _first_line(*command: str) -> str:
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return told.splitlines()[0] if told else ""
