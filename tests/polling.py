"""Waits for what nobody tells of: what another process wrote, or counts."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(holds: Callable[[], bool], *, seconds: float, look_seconds: float = 0.05) -> bool:
    """Look every `look_seconds` until it holds, at most for so long; says whether it does."""
    deadline = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < deadline:
        # What is looked at is a database, a file or an answer of another process, none of which
        # tells when it changes; and without a pause, looking would take a core from that process.
        time.sleep(look_seconds)
    return held
