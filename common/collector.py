"""How often Python's garbage collector looks for objects that only know each other."""

from __future__ import annotations

import gc

# A call makes thousands of objects, nearly all of which go without the collector.
_THRESHOLDS = (20_000, 20, 50)


def collect_less() -> None:
    """Have the collector leave alone what is there, and look at the rest less often.

    For a process that has just started: what it has by now, its modules and settings, stays to
    its end. Python's own thresholds cost a process under load some six percent of its time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
