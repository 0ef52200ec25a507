"""What is erased from the log is erased from all that follows it, and totals stay true."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from common.uid import new_uid
from services.query.columns import Dimension, Scope
from services.query.duck import DuckColumns
from services.query.freshness import Cursor
from services.query.identities import user_subject
from services.query.projection import Fact, fact_of, recorded_event
from services.query.tables import FIGURES, revenue, tallies
from shoptrail.ingest.v1 import event_pb2, ingest_pb2
from shoptrail.privacy.v1.subject_pb2 import Subject
from shoptrail.query.v1 import query_pb2
from tests.privacy.shop import (
    NOW,
    PLANTED,
    Shop,
    event,
    of_ada,
    of_somebody,
    others_sending,
    planted_in,
)
from tests.services.query.fake_ingest import happened

SUPPRESSED = event_pb2.VERDICT_SUPPRESSED
_SUMS = {"order_count", "gross", "refund_count", "refunded", "cancellation_count", "cancelled"} | {
    "quantity",
    "revenue",
    "session_count",
    "bounce_count",
    "page_count",
    "duration",
}


_NOT_COMPARED = {"generation"}


async def erase(shop: Shop, subject: Subject) -> list[Any]:
    """As Maintenance does it; returns the changes of the log."""
    answer = await shop.ingest.EraseSubject(
        ingest_pb2.EraseSubjectRequest(store_uid=shop.store_uid, subject=subject), timeout=60
    )
    assert answer.done
    followed = await shop.query.EraseSubject(
        query_pb2.EraseSubjectRequest(
            store_uid=shop.store_uid, subject=subject, changes=answer.changes
        ),
        timeout=60,
    )
    assert followed.done, followed
    return list(answer.changes)


async def figures_of(shop: Shop, generation: int) -> dict[str, Counter[tuple[Any, ...]]]:
    """All rows of a generation, but for sums of nothing."""
    found = {}
    async with shop.databases["query"].read() as snapshot:
        for table in FIGURES:
            columns = [one for one in table.c if one.name not in _NOT_COMPARED]
            rows = await snapshot.execute(select(*columns).where(table.c.generation == generation))
            sums = [index for index, column in enumerate(columns) if column.name in _SUMS]
            found[table.name] = Counter(
                tuple(row) for row in rows if not sums or any(row[index] for index in sums)
            )
    return found


async def totals_of(shop: Shop) -> dict[Any, int]:
    """What reports say of the shop: events by name, each measure in all, orders and money."""
    async with shop.databases["query"].read() as snapshot:
        measure, name = tallies.c.measure, tallies.c.name
        found: dict[Any, int] = {}
        for kind, text, total in await snapshot.execute(
            select(measure, name, func.sum(tallies.c.tally)).group_by(measure, name)
        ):
            key = (kind, text) if kind < 100 else kind
            found[key] = found.get(key, 0) + int(total)
        sums = [revenue.c[one] for one in ("order_count", "gross", "refund_count", "refunded")]
        for currency, *amounts in await snapshot.execute(
            select(revenue.c.currency, *(func.sum(one) for one in sums)).group_by(
                revenue.c.currency
            )
        ):
            found |= {
                (currency, column.name): int(amount)
                for column, amount in zip(sums, amounts, strict=True)
            }
    return {key: total for key, total in found.items() if total}


async def test_an_order_of_which_more_is_told_than_is_followed_at_once_gets_another_id(
    shop: Shop,
) -> None:
    chance = random.Random(12)  # noqa: S311 - nothing secret
    await shop.send(event("identify", userId="ada-4711", anonymousId="phone-4711"))
    # Followed 500 at a time, so that some orders' events are parted.
    await shop.send(*(of_ada(chance, order_count=8) for _ in range(900)))
    await shop.all_followed()
    before = await totals_of(shop)

    await erase(shop, await shop.resolve(user_ids=["ada-4711"]))

    assert await totals_of(shop) == before
    assert await planted_in(shop, *PLANTED) == []


async def test_totals_stay_and_a_rebuild_says_the_same_after_an_erasure(shop: Shop) -> None:
    chance = random.Random(3)  # noqa: S311 - nothing secret
    await shop.send(
        event("identify", userId="ada-4711", anonymousId="phone-4711"),
        event("alias", previousId="ada-4711-old", userId="ada-4711"),
        # A device that both use stays the other's.
        event("identify", userId="ada-4711", anonymousId="desk"),
        event("identify", userId="u1", anonymousId="desk"),
        event("page", userId="u1", anonymousId="desk"),
    )
    everything = [of_ada(chance) for _ in range(300)] + [of_somebody(chance) for _ in range(300)]
    chance.shuffle(everything)
    for start in range(0, len(everything), 100):
        await shop.send(*everything[start : start + 100])
    await shop.all_followed()
    before = await totals_of(shop)
    subject = await shop.resolve(user_ids=["ada-4711"])
    counted = await shop.query.CountSubject(
        query_pb2.CountSubjectRequest(store_uid=shop.store_uid, subject=subject), timeout=10
    )
    assert {one.table for one in counted.found} >= {"query.recorded_events", "query.visits"}

    await erase(shop, subject)

    assert await totals_of(shop) == before
    await shop.all_followed()
    assert await planted_in(shop, *PLANTED) == []
    old, new = await shop.rebuilt()
    amended, anew = await figures_of(shop, old), await figures_of(shop, new)
    assert {name for name in anew if amended[name] != anew[name]} == set()
    assert await totals_of_generation(shop, new) == before


async def totals_of_generation(shop: Shop, generation: int) -> dict[Any, int]:
    """As `totals_of`, once the other generations are dropped."""
    async with shop.databases["query"].begin() as transaction:
        for table in FIGURES:
            await transaction.execute(table.delete().where(table.c.generation != generation))
    return await totals_of(shop)


async def test_an_erasure_while_figures_are_made_anew_and_others_send(shop: Shop) -> None:
    chance = random.Random(4)  # noqa: S311 - nothing secret
    await shop.send(event("identify", userId="ada-4711", anonymousId="phone-4711"))
    await shop.send(*(of_ada(chance) for _ in range(200)))
    await shop.send(*(of_somebody(chance) for _ in range(200)))
    await shop.all_followed()
    async with others_sending(shop, chance) as got:
        rebuilding = asyncio.create_task(shop.rebuilt())
        subject = await shop.resolve(user_ids=["ada-4711"])
        suppress = ingest_pb2.SuppressSubjectRequest(store_uid=shop.store_uid, subject=subject)
        await shop.ingest.SuppressSubject(suppress, timeout=10)
        await erase(shop, subject)
        await rebuilding
    assert SUPPRESSED in got
    await shop.all_followed()

    assert await planted_in(shop, *PLANTED) == []
    old, new = await shop.rebuilt()
    amended, anew = await figures_of(shop, old), await figures_of(shop, new)
    assert {name for name in anew if amended[name] != anew[name]} == set()


async def test_columns_forget_the_person_and_still_count_what_happened(shop: Shop) -> None:
    chance = random.Random(5)  # noqa: S311 - nothing secret
    await shop.send(event("identify", userId="ada-4711", anonymousId="phone-4711"))
    await shop.send(*(of_ada(chance) for _ in range(50)), *(of_somebody(chance) for _ in range(50)))
    await shop.all_followed()
    scope = Scope(shop.store_uid, NOW - timedelta(days=1), NOW + timedelta(days=1))
    ada = user_subject("ada-4711")

    async def look() -> tuple[int, set[str], int]:
        """What happened in all, the campaigns, and how much of it was the person's."""
        rows = await shop.columns.break_down(scope, None, Dimension.CAMPAIGN, limit=100)
        mine = await shop.columns.timeline(shop.store_uid, ada, after=None, limit=1000)
        return sum(row.event_count for row in rows), {row.value for row in rows}, len(mine)

    assert await look() == (101, {"planted words /  / ", "mail /  / ", ""}, 51)

    await erase(shop, await shop.resolve(anonymous_ids=["phone-4711"]))
    await shop.all_followed()

    assert await look() == (101, {"(erased) /  / ", "mail /  / ", ""}, 0)


NOTED = b'{"properties": {"note": "planted words"}}'


def has_note(path: Path) -> bool:
    return b"planted words" in path.read_bytes()


NOTED_STORE = new_uid("sto")
ALL_OF_IT = Scope(NOTED_STORE, NOW - timedelta(days=999), NOW + timedelta(days=999))


def noted(payload: bytes) -> Fact:
    recorded = happened(NOTED_STORE, payload=payload)
    recorded.position = 1
    return fact_of(recorded_event(recorded, shard=0))


@pytest.fixture
async def columns_path(tmp_path: Path) -> Path:
    """A file of columns that hold planted words."""
    path = tmp_path / "columns.duckdb"
    columns = DuckColumns(path)
    await columns.add(Cursor(0, 1, NOW), [noted(NOTED)])
    await columns.close()
    assert has_note(path)
    return path


async def test_the_file_of_the_columns_is_written_anew_without_what_was_erased(
    columns_path: Path,
) -> None:
    columns = DuckColumns(columns_path)
    await columns.amend(0, 1, [noted(b"{}")])
    tidying = asyncio.create_task(columns.tidy())
    answers = []
    while not tidying.done():  # Whenever it is asked, it answers.
        answers += await columns.break_down(ALL_OF_IT, None, Dimension.PAGE, limit=1)
    await tidying

    assert not has_note(columns_path)
    assert {answer.event_count for answer in answers} == {1}
    assert await columns.cursors() == [Cursor(0, 1, NOW, change_number=1)]
    # A database that goes on, to which may be added.
    await columns.add(Cursor(0, 2, NOW), [])
    await columns.close()
    assert os.listdir(columns_path.parent) == ["columns.duckdb"]  # noqa: PTH208 - briefly


@pytest.mark.parametrize("way", ["closed", "killed", "cleared"])
async def test_columns_leave_no_file_with_what_was_erased(
    columns_path: Path, tmp_path_factory: pytest.TempPathFactory, way: str
) -> None:
    columns = DuckColumns(columns_path)
    if way == "cleared":
        await columns.clear()
    else:
        await columns.amend(0, 1, [noted(b"{}")])
    if way == "killed":
        left = tmp_path_factory.mktemp("left") / columns_path.name
        shutil.copy(columns_path, left)
        await columns.close()
        assert has_note(left)
        columns, columns_path = DuckColumns(left), left
    await columns.close()

    assert not has_note(columns_path)
    assert os.listdir(columns_path.parent) == ["columns.duckdb"]  # noqa: PTH208 - briefly
