"""People of a large store are erased everywhere while others send, and how long that takes."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.drills.figures import FULL, Figures, replace_block
from tests.privacy.desk import ERASE, Desk
from tests.privacy.shop import PLANTED, Shop, event, of_ada, of_somebody, others_sending, planted_in

EVENTS, OF_PERSON = (1_000_000, 5_000) if FULL else (3_000, 150)
PEOPLE = (4711, 4712, 4713)
BATCH = 1_000
DAYS = 30.0
GOAL_SECONDS = 5.0
_DOCUMENT = Path(__file__).parents[2] / "docs" / "privacy.md"


@pytest.fixture(scope="module")
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    columns = ["database", "events in the store", "of the person", "erased and verified in"]
    table = Figures([*columns, "longest"])
    yield table
    if FULL and not request.session.testsfailed and not request.config.getoption("keyword"):
        replace_block(_DOCUMENT, "figures", table.as_markdown(servers=[]))


@pytest.fixture
async def large_shop(shop: Shop) -> AsyncIterator[Shop]:
    chance = random.Random(8)  # noqa: S311 - nothing secret
    for number in PEOPLE:
        identified = {"userId": f"ada-{number}", "anonymousId": f"phone-{number}"}
        await shop.send(event("identify", **identified))
    of_person = OF_PERSON // (EVENTS // BATCH)
    for _ in range(EVENTS // BATCH):
        mine = [
            of_ada(chance, number, order_count=OF_PERSON // 10, days=DAYS)
            for number in PEOPLE
            for _ in range(of_person)
        ]
        others = [
            of_somebody(chance, person_count=EVENTS // 50, days=DAYS)
            for _ in range(BATCH - len(mine))
        ]
        await shop.send(*mine, *others)
    await shop.all_followed(within_seconds=1800)
    await shop.resolve(user_ids=["nobody"])  # As the job does each minute.
    yield shop


@pytest.mark.timeout(3600 if FULL else 180)
async def test_people_of_a_large_store_are_erased_everywhere_while_others_send(
    large_shop: Shop, desk: Desk, figures: Figures
) -> None:
    chance = random.Random(9)  # noqa: S311 - nothing secret
    took: list[float] = []
    async with others_sending(large_shop, chance):
        for number in reversed(PEOPLE):
            began = time.monotonic()
            case = await desk.done(ERASE, user_id=f"ada-{number}")
            took.append(time.monotonic() - began)
            counts = {one.table: one.row_count for one in case.counts}
            assert counts["ingest.events"] >= OF_PERSON
            assert counts["query.recorded_events"] >= OF_PERSON
    await large_shop.all_followed(within_seconds=600)

    everybody = [f"{name}-{number}" for name in ("ada", "phone") for number in PEOPLE]
    assert await planted_in(large_shop, *PLANTED, *everybody) == []
    name = "SQLite" if large_shop.databases["ingest"].is_sqlite else "MariaDB"
    median = statistics.median(took)
    figures.add(name, f"{EVENTS:,}", f"{OF_PERSON:,}", f"{median:.1f} s", f"{max(took):.1f} s")
    if FULL:
        assert median <= GOAL_SECONDS, took
