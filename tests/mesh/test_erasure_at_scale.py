"""People of a large store are erased everywhere while others send, and how long that takes."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from common.db import Database
from services.ingest.people_index import PeopleIndex
from services.ingest.subjects import SubjectDigests
from services.ingest.tables import events
from services.query.column_keeper import ColumnKeeper
from services.query.duck import DuckColumns
from services.query.identities import anonymous_subject, user_subject
from services.query.tables import column_copies
from tests.drills.figures import FULL, Figures, replace_block
from tests.mesh.launched import Launched
from tests.privacy.crowd import double
from tests.privacy.shop import PLANTED, event, of_ada, of_somebody, planted_in_tables

OF_PERSON, OF_OTHERS, DOUBLED = (5_000, 16_000, 6) if FULL else (150, 500, 3)
DATABASES = {"sqlite": "SQLite", "mysql": "MariaDB"}
PEOPLE = (4711, 4712, 4713)
BATCH = 500
DAYS = 30.0
GOAL_SECONDS = 5.0
LOOK_SECONDS = 0.05
_DOCUMENT = Path(__file__).parents[1] / "bench" / "RESULTS.md"


@pytest.fixture(params=DATABASES)
async def launched(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Launched]:
    """A mesh whose store has a million events, of which three people did some.

    Others' events are copied with gaps between, which is what the jobs that look for gaps find.
    """
    launched = Launched(tmp_path / "mesh", request.param)
    await launched.start()
    await fill(launched)
    await launched.stop()
    people = [anonymous_subject(f"phone-{number}") for number in PEOPLE]
    people += [user_subject(f"ada-{number}") for number in PEOPLE]
    async with launched.opened() as databases:
        await index_people(databases["ingest"], launched.secrets.subject_keys["ingest"])
        await double(databases, times=DOUBLED, but_for=people)
        await copy_to_columns(databases["query"], launched.columns_path)
    await launched.start()
    yield launched
    await launched.stop()


async def fill(launched: Launched) -> None:
    chance = random.Random(8)  # noqa: S311 - nothing secret
    payloads = [
        event("identify", userId=f"ada-{number}", anonymousId=f"phone-{number}")
        for number in PEOPLE
    ]
    did = [
        of_ada(chance, number, order_count=OF_PERSON // 10, days=DAYS)
        for number in PEOPLE
        for _ in range(OF_PERSON)
    ]
    did += [of_somebody(chance, person_count=OF_OTHERS // 10, days=DAYS) for _ in range(OF_OTHERS)]
    chance.shuffle(did)
    payloads += did
    async with client_of(launched) as http:
        for start in range(0, len(payloads), BATCH):
            answer = await send(http, launched, payloads[start : start + BATCH])
            assert answer["accepted"] == len(payloads[start : start + BATCH])
        sent_at = datetime.now(UTC)
        async with asyncio.timeout(600):
            while await read_as_of(http, launched) <= sent_at:  # noqa: ASYNC110 - tells nobody
                await asyncio.sleep(LOOK_SECONDS)


async def index_people(database: Database, key: str) -> None:
    """Let people be found by an index, as a job does each minute."""
    index = PeopleIndex(database, SubjectDigests(bytes.fromhex(key)))
    await index.catch_up(until=time.monotonic() + 600)


async def copy_to_columns(database: Database, path: Path) -> None:
    """Bring the columns to where the listing is, so that nobody need wait for that later."""
    columns = DuckColumns(path)
    keeper = ColumnKeeper(database, columns)
    while await keeper.copy_page():
        pass
    await columns.close()
    async with database.begin() as transaction:
        # Nobody is to wait for this copy, which isn't kept any more.
        await transaction.execute(column_copies.delete())


@pytest.mark.timeout(3600 if FULL else 180)
async def test_people_of_a_large_store_are_erased_everywhere_while_others_send(
    launched: Launched,
) -> None:
    took: list[float] = []
    key = await launched.privacy_key()
    async with client_of(launched) as http, others_sending(http, launched):
        for number in reversed(PEOPLE):
            began = time.monotonic()
            counts = await erased(http, launched, key, f"ada-{number}")
            took.append(time.monotonic() - began)
            assert counts["ingest.events"] >= OF_PERSON
            assert counts["query.recorded_events"] >= OF_PERSON

    texts = [
        *PLANTED,
        *(f"{name}-{number}" for name in ("ada", "phone") for number in PEOPLE),
    ]
    assert await launched.redis_keys_with(*texts) == []
    await launched.stop()
    async with launched.opened() as databases:
        async with databases["ingest"].read() as snapshot:
            in_store = await snapshot.scalar(select(func.count()).select_from(events))
        assert await planted_in_tables(databases, *texts) == []
    of_server = ("mysql/data/",)
    assert [path for path in launched.files_with(*texts) if not path.startswith(of_server)] == []
    if FULL:
        write_down(DATABASES[launched.database], int(in_store or 0), took)
        assert statistics.median(took) <= GOAL_SECONDS, took


def client_of(launched: Launched) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=launched.announcement["gateway"], timeout=30)


async def send(
    http: httpx.AsyncClient, launched: Launched, payloads: Sequence[bytes]
) -> dict[str, Any]:
    body = b'{"batch":[' + b",".join(payloads) + b"]}"
    answer = await http.post(
        "/v1/batch", auth=(launched.announcement["write_key"], ""), content=body
    )
    told: dict[str, Any] = answer.raise_for_status().json()
    return told


async def read_as_of(http: httpx.AsyncClient, launched: Launched) -> datetime:
    told = launched.announcement
    answer = await http.get(
        f"/v1/stores/{told['store_uid']}/events",
        params={"page_size": 1},
        auth=(told["secret_key"], ""),
    )
    as_of: dict[str, str] = answer.raise_for_status().json()["as_of"]
    return datetime.fromisoformat(as_of.get("time", "1970-01-01T00:00:00Z"))


async def erased(
    http: httpx.AsyncClient, launched: Launched, key: str, user_id: str
) -> dict[str, int]:
    """Ask for a person to be erased; returns how many rows of which table were, once they are."""
    cases = f"/v1/stores/{launched.announcement['store_uid']}/privacy-cases"
    authorized = {"Authorization": f"Bearer {key}"}
    asked = await http.post(cases, headers=authorized, json={"kind": "ERASE", "user_id": user_id})
    case = asked.raise_for_status().json()["case"]
    async with asyncio.timeout(90):
        while case["state"] != "CASE_STATE_DONE":
            assert case["state"] != "CASE_STATE_FAILED", case
            # A case tells nobody that it is done, so who asked looks.
            await asyncio.sleep(LOOK_SECONDS)
            looked = await http.get(f"{cases}/{case['uid']}", headers=authorized)
            case = looked.raise_for_status().json()["case"]
    return {one["table"]: int(one["row_count"]) for one in case["counts"]}


@asynccontextmanager
async def others_sending(http: httpx.AsyncClient, launched: Launched) -> AsyncIterator[None]:
    """Others, and the people too, send for as long as the block takes."""
    chance = random.Random(9)  # noqa: S311 - nothing secret

    async def keep_sending() -> None:
        while True:
            await send(http, launched, [*(of_somebody(chance) for _ in range(10)), of_ada(chance)])
            await asyncio.sleep(0.02)  # Some hundreds of events a second, not all there can be.

    sending = asyncio.create_task(keep_sending())
    try:
        yield
    finally:
        sending.cancel()
        await asyncio.wait([sending])
        if not sending.cancelled() and sending.exception():
            raise AssertionError("a writer failed") from sending.exception()


def write_down(database: str, in_store: int, took: list[float]) -> None:
    """Let the document say how long it took, on this database."""
    columns = ["database", "events in the store", "of each person", "erased and verified in"]
    table = Figures([*columns, "longest of three"])
    median = f"{statistics.median(took):.1f} s"
    table.add(database, f"{in_store:,}", f"{OF_PERSON:,}", median, f"{max(took):.1f} s")
    replace_block(_DOCUMENT, f"figures on {database}", table.as_markdown(servers=[]))
