"""Ingest as it must not be: it acknowledges events before they are committed.

    python -m tests.drills.faults.careless_ingest

The drills must find that it loses events.
"""

from __future__ import annotations

import asyncio

from services.ingest import servicer
from services.ingest.__main__ import main
from services.ingest.log_writer import Delivery, LogWriter, Outcome
from services.ingest.verdicts import Verdict


class HastyWriter(LogWriter):
    """Says that all is stored, and then sees to it."""

    async def append(self, delivery: Delivery) -> Outcome:
        """Say what ought to become of the delivery."""
        storing = asyncio.create_task(super().append(delivery))
        storing.add_done_callback(lambda done: done.exception())
        return Outcome(
            [Verdict.ACCEPTED] * len(delivery.events),
            [Verdict.REJECTED] * len(delivery.rejected),
        )


if __name__ == "__main__":
    setattr(servicer, LogWriter.__name__, HastyWriter)
    asyncio.run(main())
