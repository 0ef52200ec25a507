"""Compares what clients were told with what the databases hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.uid import parse_uid
from services.ingest.append import POSITION_BITS
from services.ingest.verdicts import Verdict
from tests.drills.faults.shoppers import History


@dataclass(slots=True)
class Findings:
    """What is wrong, in numbers; all 0 if nothing is."""

    lost: int = 0
    """Events that were acknowledged, and are not stored."""
    doubled: int = 0
    """Rows too many."""
    invented: int = 0
    """Events that are stored, and were never sent."""
    unbalanced: int = 0
    """By how much the sums of verdicts differ from what is stored."""
    gaps: int = 0
    """Positions of the log that hold nothing, or are beyond its head."""
    disordered: int = 0
    """Events that stand before one that the same client had had acknowledged earlier."""
    examples: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not any(
            (
                *(self.lost, self.doubled, self.invented),
                *(self.unbalanced, self.gaps, self.disordered),
            )
        )


async def check(
    connection: AsyncConnection, store_uid: str, history: History, *, ordered: bool
) -> Findings:
    """What is wrong with a store's events, on Ingest's own database."""
    store = parse_uid("sto", store_uid)
    rows = (
        await connection.execute(
            text("SELECT id, message_id FROM events WHERE store_uid = :store ORDER BY id"),
            {"store": store},
        )
    ).all()
    rejected = set(
        (
            await connection.execute(
                text("SELECT message_id FROM rejected_events WHERE store_uid = :store"),
                {"store": store},
            )
        ).scalars()
    )
    sums: dict[int, int] = {
        verdict: int(count)
        for verdict, count in await connection.execute(
            text(
                "SELECT verdict, SUM(event_count) FROM verdict_hours"
                " WHERE store_uid = :store GROUP BY verdict"
            ),
            {"store": store},
        )
    }
    stored = Counter(row.message_id for row in rows)
    lost = (history.acked.keys() - stored.keys()) | (history.rejected - rejected)
    invented = (stored.keys() | rejected) - history.sent
    findings = Findings(
        lost=len(lost),
        doubled=sum(count - 1 for count in stored.values()),
        invented=len(invented),
        # What is committed is counted, and what is counted committed.
        unbalanced=abs(sums.get(Verdict.ACCEPTED, 0) - len(rows))
        + max(0, len(rejected) - sums.get(Verdict.REJECTED, 0)),
        gaps=await _count_gaps(connection),
        disordered=_count_disorder([row.message_id for row in rows], history) if ordered else 0,
        examples=sorted(lost | invented)[:5],
    )
    return findings


async def _count_gaps(connection: AsyncConnection) -> int:
    gaps = 0
    heads = (await connection.execute(text("SELECT shard, position FROM log_heads"))).all()
    for shard, head in heads:
        base = shard << POSITION_BITS
        count, first, last = (
            await connection.execute(
                text(
                    "SELECT COUNT(*), MIN(id), MAX(id) FROM events WHERE id > :low AND id < :high"
                ),
                {"low": base, "high": base + (1 << POSITION_BITS)},
            )
        ).one()
        if count or head:
            gaps += abs(head - count)
            gaps += abs((first or base + 1) - base - 1) + abs((last or base) - base - head)
    return gaps


def _count_disorder(message_ids: Sequence[str], history: History) -> int:
    latest: dict[int, int] = {}
    disordered = 0
    for message_id in message_ids:
        if message_id not in history.acked:
            continue
        shopper, number = history.acked[message_id]
        if number < latest.get(shopper, 0):
            disordered += 1
        latest[shopper] = max(number, latest.get(shopper, 0))
    return disordered
