"""Says what was made in storefronts' pages and never arrived: the numbers that are missing.

The storefront script numbers the events of each browser, from 1, without a gap. So between
two that arrived, what is missing was made, and is lost or still on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from services.query.payload import Payload, number_in, part_in, text_in

MOST_LOST_AT_ONCE = 1000
"""Anyone can send any number. The script keeps no more events than this."""

_LARGEST_NUMBER = 10**12


@dataclass(frozen=True, slots=True)
class Numbering:
    """Which of a browser's events this is."""

    visitor: str
    number: int


@dataclass(frozen=True, slots=True)
class Loss:
    """What arrived from one kind of browser in one period, and what did not."""

    period: int
    browser: str
    arrived_count: int
    lost_count: int


def numbering_of(payload: Payload) -> Numbering | None:
    """The number that the script gave the event; None if it gave none."""
    given = part_in(payload.context, "shoptrail")
    visitor = text_in(given, "visitor")
    number = number_in(given, "sequence")
    if not visitor or number is None or not 0 < number < _LARGEST_NUMBER:
        return None
    return Numbering(visitor, int(number)) if number == Decimal(int(number)) else None


def find_losses(events: str) -> str:
    """The question in SQL, over the table of events.

    `$store`, `$starts` of periods and the `$end` of the last are its parameters. What is
    missing counts where the next event is that arrived.
    """
    return f"""
        WITH periods AS (
            SELECT unnest($starts::BIGINT[]) AS start, unnest(range(len($starts))) AS period
        ),
        numbered AS (
            SELECT numbered_by, number, min(time) AS time,
                arg_min(coalesce(nullif(agent, ''), 'other'), time) AS agent
            FROM {events}
            WHERE store = $store AND numbered_by IS NOT NULL AND time < $end
            GROUP BY numbered_by, number
        ),
        steps AS (
            SELECT time, agent, least({MOST_LOST_AT_ONCE}, number - 1 - coalesce(
                lag(number) OVER (PARTITION BY numbered_by ORDER BY number), 0)) AS lost
            FROM numbered
        )
        SELECT period, agent, count(*), sum(lost)::BIGINT
        FROM steps ASOF JOIN periods ON steps.time >= periods.start
        GROUP BY period, agent ORDER BY period, agent
        """  # noqa: S608 - the name of a table only


def spread(
    losses: Sequence[Loss], browser: str, *, period_count: int
) -> tuple[list[int], list[int]]:
    """What arrived of a browser's in each period, and what did not."""
    arrived, lost = [0] * period_count, [0] * period_count
    for loss in losses:
        if loss.browser == browser:
            arrived[loss.period] = loss.arrived_count
            lost[loss.period] = loss.lost_count
    return arrived, lost
