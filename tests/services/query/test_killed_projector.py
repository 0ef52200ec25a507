"""Processes that project may be killed anywhere, and a log may be long: figures stay exact."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sqlalchemy import select

from common.db import Database
from services.query import figures, repository
from services.query.projection import fold
from services.query.projector import Projector
from services.query.tables import recorded_events
from shoptrail.query.v1.query_pb2 import CountEventsRequest
from tests.drills.figures import FULL
from tests.services.query.fake_ingest import NOON, FakeIngest, happened, timestamp
from tests.services.query.scene import ReadingFrom, Scene
from tests.services.query.test_projector import following
from tests.services.query.test_rebuild import figures_of, shopping

ROOT = Path(__file__).parents[3]
EVENTS, KILLS = (800, 100) if FULL else (240, 15)
# A killed process is looked at now and then: so many must have left work.
LEFT_WORK = 5 if FULL else 0


def url_of(database: Database) -> str:
    """Where another process finds the database, with its password."""
    return database._engine.url.render_as_string(hide_password=False)


async def test_a_projector_that_is_killed_again_and_again_changes_no_figure(
    database: Database, tmp_path: Path
) -> None:
    events = shopping(EVENTS, seed=3)
    for position, event in enumerate(events, start=1):
        event.position = position
    log = tmp_path / "log"
    log.write_text("\n".join(event.SerializeToString().hex() for event in events))

    killing = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.services.query.killed_projector"),
        *(url_of(database), str(log), str(KILLS)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told, complaints = await killing.communicate()

    assert killing.returncode == 0, complaints.decode()
    assert int(told) > LEFT_WORK  # Of every fifth, so many were killed with work left to do.
    # Beside what the killed ones made, all at once.
    async with database.begin() as transaction:
        projection = fold(events, shard=0, after_position=0)
        await figures.add_facts(transaction, 2, projection.facts)
    assert await figures_of(database, 1) == await figures_of(database, 2)
    async with database.read() as snapshot:
        listed = (await snapshot.execute(select(recorded_events.c.message_id))).scalars().all()
        cursors = await repository.list_cursors(snapshot, 1)
    assert len(listed) == len(set(listed)) == EVENTS
    assert [cursor.position for cursor in cursors] == [EVENTS]


async def test_a_long_log_is_caught_up_with_while_answers_are_given(
    scene: Scene, reading_from: ReadingFrom
) -> None:
    ingest = FakeIngest()
    ingest.page_size = 125
    ingest.add(*(happened(scene.store_uid, f"Step {number % 5}") for number in range(3000)))
    request = CountEventsRequest(
        start_time=timestamp(NOON), end_time=timestamp(NOON.replace(hour=13))
    )
    positions: list[int] = []

    async with reading_from(ingest) as stub:
        projector = Projector(scene.database, stub, sightings=scene.sightings)
        async with following(projector):
            async with asyncio.timeout(60):
                while not positions or positions[-1] < 3000:
                    async with asyncio.timeout(5):
                        report = await scene.count(request)
                    # Whatever is there by then, it is all of it.
                    assert report.total_count == report.as_of.position
                    positions.append(report.as_of.position)

    assert positions[0] < 3000  # It answered before it had read all.
    assert len(set(positions)) > 3
    assert positions == sorted(positions)
