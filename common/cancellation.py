"""Makes sure that a task which is told to end ends."""

from __future__ import annotations

import asyncio


def heed_cancellation() -> None:
    """Raise `CancelledError` if the task was cancelled and something it called took no notice.

    For loops that go on after any error: until Python 3.12 `asyncio.wait_for`, which drivers
    connect with, loses a cancellation that comes with the end of what it waits for
    (python/cpython#86296).
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
