"""How often Python's garbage collector looks for objects that only know each other."""

from __future__ import annotations

import gc

# A page of events is tens of thousands of small objects, nearly all of which go without the
# collector; Python's own threshold, 700, would set it off dozens of times.
_THRESHOLDS = (100_000, 20, 50)


def collect_less() -> None:
    """Have the collector leave alone what is there, and look at the rest less often.

    For a process that has just started: what it has by now, its modules and settings, stays to
    its end.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
