"""One person of a large store is erased everywhere, and how long that takes."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drills.figures import FULL, Figures, replace_block
from tests.privacy.desk import ERASE, Desk
from tests.privacy.shop import PLANTED, Shop, event, of_ada, planted_in

EVENTS, OF_PERSON = (1_000_000, 5_000) if FULL else (3_000, 300)
BATCH = 1_000
_DOCUMENT = Path(__file__).parents[2] / "docs" / "privacy.md"


@pytest.fixture(scope="module")
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    table = Figures(["database", "events in the store", "of the person", "erased and verified in"])
    yield table
    if FULL and not request.session.testsfailed and not request.config.getoption("keyword"):
        replace_block(_DOCUMENT, "figures", table.as_markdown(servers=[]))


@pytest.mark.timeout(3600 if FULL else 180)
async def test_a_person_of_a_large_store_is_erased_everywhere(
    shop: Shop, desk: Desk, figures: Figures
) -> None:
    chance = random.Random(8)  # noqa: S311 - nothing secret
    await shop.send(event("identify", userId="ada-4711", anonymousId="phone-4711"))
    of_person = OF_PERSON // (EVENTS // BATCH)
    for _ in range(EVENTS // BATCH):
        others = [
            event("track", event="Product Viewed", userId=f"u{chance.randrange(20_000)}")
            for _ in range(BATCH - of_person)
        ]
        await shop.send(*others, *(of_ada(chance) for _ in range(of_person)))
    await shop.all_followed(within_seconds=1800)
    await shop.resolve(user_ids=["nobody"])  # As the job does each minute.

    began = time.monotonic()
    case = await desk.done(ERASE, user_id="ada-4711")
    seconds = time.monotonic() - began

    counts = {one.table: one.row_count for one in case.counts}
    assert counts["ingest.events"] >= OF_PERSON
    if not FULL:  # Which looks at each row of each table.
        assert await planted_in(shop, *PLANTED) == []
    name = "SQLite" if shop.databases["ingest"].is_sqlite else "MariaDB"
    figures.add(name, EVENTS + 1, counts["ingest.events"], f"{seconds:.1f} s")
    if FULL:
        assert seconds <= 5
