"""Runs a drill: load, a fault in the middle of it, and an account of what became of the events."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx

from tests.drills.faults.checker import Findings, check
from tests.drills.faults.shoppers import History, Shopper
from tests.drills.faults.stage import Shop, Stage

SEED = int(os.environ.get("SHOPTRAIL_DRILL_SEED", "7"))
"""What chance is made of. A drill that failed is repeated with the same."""

Fault = Callable[[Stage], Awaitable[None]]

_WARM_UP_SECONDS = 0.3
_RECOVERY_SECONDS = 0.5
# How long Query may stand still while it catches up.
_STANDSTILL_SECONDS = 60
# No drill sets a clock further from the right time.
_CLOCKS_JUMP = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Load:
    """Who sends how much."""

    shopper_count: int = 12
    batch_size: int = 5
    pause_seconds: float = 0.01
    retry: bool = True


@dataclass(slots=True)
class Report:
    """What a drill found."""

    history: History
    findings: Findings
    seconds: float
    fault_count: int
    miscounted: int = 0
    """By how much Query's counts differ from a recount of the log."""
    unknown: int = field(init=False)
    """Events that were sent and, in the end, neither acknowledged nor refused for good."""

    def __post_init__(self) -> None:
        history = self.history
        self.unknown = len(history.sent - history.acked.keys() - history.rejected)

    def cells(self) -> list[str]:
        """As they stand in the table."""
        history = self.history
        told = len(history.acked) + len(history.rejected)
        return [
            f"{told:,}",
            str(self.findings.lost),
            str(self.findings.doubled),
            str(self.unknown),
            str(history.retry_count),
            f"{history.percentile(0.99) * 1000:.0f} ms",
            f"{history.longest_wait:.1f} s",
            f"{told / self.seconds:,.0f}/s",
        ]


COLUMNS = ("drill", "acked", "lost", "doubled", "unknown", "retries", "p99", "longest wait", "load")


async def run_drill(
    stage: Stage,
    fault: Fault,
    *,
    load: Load | None = None,
    ordered: bool = True,
    recounted: bool = True,
) -> Report:
    """Send events from all sides, do the fault meanwhile, and check all of it afterwards."""
    load = load or Load()
    shop = await stage.new_shop()
    history = History()
    over = asyncio.Event()
    faults_before = stage.fault_count
    began = time.monotonic()
    shoppers = [
        asyncio.create_task(
            Shopper(
                number,
                port=stage.port,
                key=shop.write_key,
                history=history,
                seed=SEED,
                batch_size=load.batch_size,
            ).shop(over, pause_seconds=load.pause_seconds, retry=load.retry)
        )
        for number in range(load.shopper_count)
    ]
    try:
        await asyncio.sleep(_WARM_UP_SECONDS)
        await fault(stage)
        await asyncio.sleep(_RECOVERY_SECONDS)
    finally:
        over.set()
        await asyncio.gather(*shoppers)
        await stage.network.heal()
        await stage.other_network.heal()
    seconds = time.monotonic() - began
    await stage.wait_until_drained()
    async with stage.root.connect() as connection:
        findings = await check(connection, shop.store_uid, history, ordered=ordered)
    return Report(
        history,
        findings,
        seconds,
        fault_count=stage.fault_count - faults_before,
        miscounted=await _count_miscounted(stage, shop) if recounted else 0,
    )


async def _count_miscounted(stage: Stage, shop: Shop) -> int:
    """By how much Query's counts differ from the log once it has had time to catch up."""
    expected = await stage.count_names(shop)
    url = f"http://{stage.gateway}/v1/stores/{shop.store_uid}/reports/event-counts"
    now = datetime.now(UTC)  # Clocks that jump date events outside of the range that is usual.
    params = {
        "start_time": (now - _CLOCKS_JUMP).isoformat(),
        "end_time": (now + _CLOCKS_JUMP).isoformat(),
    }
    deadline = time.monotonic() + _STANDSTILL_SECONDS
    found: Mapping[str, int] = {}
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {shop.secret_key}"}) as client:
        while found != expected and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
            try:
                answer = await client.get(url, params=params, timeout=10)
            except httpx.HTTPError:
                continue
            if answer.status_code == 200 and (counted := _names_of(answer.json())) != found:
                found = counted
                deadline = time.monotonic() + _STANDSTILL_SECONDS
    return sum(abs(found.get(name, 0) - expected.get(name, 0)) for name in {*found, *expected})


def _names_of(report: dict[str, list[dict[str, str]]]) -> dict[str, int]:
    return {series["name"]: int(series["total_count"]) for series in report.get("series", [])}
