"""How a command fails, and with which exit code."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What scripts can go by."""

    DONE = 0
    FOUND = 1
    """`scan` found a key; `audit verify` found a break; `reconcile` orders that differ."""
    USAGE = 2
    """The command line, or a value in it, is not valid."""
    REFUSED = 3
    """The key is missing, not valid, or may not do this."""
    NOT_FOUND = 4
    WRONG_STATE = 5
    """What was asked for is not possible in this state, or others were in the way."""
    UNAVAILABLE = 6
    """The gateway or something behind it gave no answer. The same may work in a moment."""
    FAILED = 7
    """The fault is Shoptrail's."""


class CommandFailed(Exception):
    """The command was not done; its text says why."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code
