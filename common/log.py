"""Logs as JSON, a line an event, on standard error."""

from __future__ import annotations

import logging
import sys
import traceback

from pythonjsonlogger.json import JsonFormatter


def start_logging(process: str, level: str) -> None:
    """Send this process's log to standard error, each line naming the process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            "{levelname}{name}{message}",
            style="{",
            rename_fields={"levelname": "level", "name": "logger", "message": "event"},
            static_fields={"process": process},
            timestamp="time",
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def describe_failure(error: BaseException) -> dict[str, str]:
    """What the log may say of an exception: its types and where it was raised.

    Never its text, which may hold what a caller sent.
    """
    kinds = []
    frames = []
    seen: BaseException | None = error
    while seen is not None:
        kinds.append(type(seen).__qualname__)
        frames += traceback.format_tb(seen.__traceback__)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return {"error": " from ".join(kinds), "stack": "".join(frames)}
