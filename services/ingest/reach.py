"""Tells failures of the database that pass by themselves from those that don't."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from common.errors import DependencyUnavailable
from services.ingest.append import HeadMissing


@dataclass(frozen=True, slots=True)
class Witness:
    """An event that is stored if, and only if, a transaction was committed."""

    event_uid: bytes = b""
    rejected_uid: str = ""
    """The one or the other is empty."""


class LogOutOfReach(DependencyUnavailable):
    """The database is away, or too slow: nothing was stored, unless there is a witness."""

    def __init__(self, witness: Witness | None = None) -> None:
        super().__init__()
        self.witness = witness
        """Tells whether all was stored after all, if nobody can know now."""


def is_out_of_reach(error: Exception) -> bool:
    """Whether the same may succeed later: the database is away, full, locked or too slow."""
    match error:
        case OperationalError() | InterfaceError() | PoolTimeoutError() | OSError():
            return True  # TimeoutError is an OSError.
        case LogOutOfReach() | HeadMissing() | DBAPIError(connection_invalidated=True):
            return True
    return False
