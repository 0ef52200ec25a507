"""People of a large store are erased everywhere while others send, and how long that takes."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import func, select

from services.ingest.tables import events
from services.query.identities import anonymous_subject, user_subject
from tests.conftest import Databases, Serving
from tests.drills.figures import FULL, Figures, replace_block
from tests.privacy.conftest import open_shop
from tests.privacy.crowd import double
from tests.privacy.desk import ERASE, Desk
from tests.privacy.shop import PLANTED, Shop, event, of_ada, of_somebody, others_sending, planted_in

OF_PERSON, OF_OTHERS, DOUBLED = (5_000, 16_000, 6) if FULL else (150, 500, 3)
PEOPLE = (4711, 4712, 4713)
BATCH = 1_000
DAYS = 30.0
GOAL_SECONDS = 5.0
_DOCUMENT = Path(__file__).parents[2] / "docs" / "privacy.md"


@pytest.fixture
async def shop(databases: Databases, serving: Serving, tmp_path: Path) -> AsyncIterator[Shop]:
    """A store with a million events, of which three people did some."""
    async with AsyncExitStack() as stack:
        opened = {
            name: await stack.enter_async_context(databases(name))
            for name in ("ingest", "query", "maintenance")
        }
        async with open_shop(opened, serving, tmp_path / "columns.duckdb") as small:
            await fill(small)
        people = [anonymous_subject(f"phone-{number}") for number in PEOPLE]
        people += [user_subject(f"ada-{number}") for number in PEOPLE]
        await double(opened, times=DOUBLED, but_for=people)
        async with open_shop(opened, serving, tmp_path / "columns.duckdb") as large:
            large.store_uid = small.store_uid
            await large.all_followed(within_seconds=1800)
            yield large


async def fill(shop: Shop) -> None:
    chance = random.Random(8)  # noqa: S311 - nothing secret
    for number in PEOPLE:
        identified = {"userId": f"ada-{number}", "anonymousId": f"phone-{number}"}
        await shop.send(event("identify", **identified))
    payloads = [
        of_ada(chance, number, order_count=OF_PERSON // 10, days=DAYS)
        for number in PEOPLE
        for _ in range(OF_PERSON)
    ]
    others = OF_OTHERS // 10
    payloads += [of_somebody(chance, person_count=others, days=DAYS) for _ in range(OF_OTHERS)]
    chance.shuffle(payloads)
    for start in range(0, len(payloads), BATCH):
        await shop.send(*payloads[start : start + BATCH])
    await shop.all_followed(within_seconds=1800)
    await shop.resolve(user_ids=["nobody"])  # As the job does each minute.


@pytest.mark.timeout(3600 if FULL else 180)
async def test_people_of_a_large_store_are_erased_everywhere_while_others_send(
    shop: Shop, desk: Desk
) -> None:
    async with shop.databases["ingest"].read() as snapshot:
        in_store = await snapshot.scalar(select(func.count()).select_from(events))
    chance = random.Random(9)  # noqa: S311 - nothing secret
    took: list[float] = []
    async with others_sending(shop, chance):
        for number in reversed(PEOPLE):
            began = time.monotonic()
            case = await desk.done(ERASE, user_id=f"ada-{number}")
            took.append(time.monotonic() - began)
            counts = {one.table: one.row_count for one in case.counts}
            assert counts["ingest.events"] >= OF_PERSON
            assert counts["query.recorded_events"] >= OF_PERSON
    await shop.all_followed(within_seconds=600)

    everybody = [f"{name}-{number}" for name in ("ada", "phone") for number in PEOPLE]
    assert await planted_in(shop, *PLANTED, *everybody) == []
    if FULL:
        write_down(
            "SQLite" if shop.databases["ingest"].is_sqlite else "MariaDB", int(in_store or 0), took
        )
        assert statistics.median(took) <= GOAL_SECONDS, took


def write_down(database: str, in_store: int, took: list[float]) -> None:
    """Let the document say how long it took, on this database."""
    columns = ["database", "events in the store", "of each person", "erased and verified in"]
    table = Figures([*columns, "longest of three"])
    median = f"{statistics.median(took):.1f} s"
    table.add(database, f"{in_store:,}", f"{OF_PERSON:,}", median, f"{max(took):.1f} s")
    replace_block(_DOCUMENT, f"figures on {database}", table.as_markdown(servers=[]))
