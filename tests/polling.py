"""Waits for what nobody tells of: what another process wrote, or counts."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(holds: Callable[[], bool], *, seconds: float, look_seconds: float = 0.05) -> bool:
    """Look every `look_seconds` until it holds, at most for so long; says whether it does."""
    deadline = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(look_seconds)  # Another process wakes nobody when it writes: only looking tells.
    return held
