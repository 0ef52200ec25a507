"""Events that used to happen and don't any more are noticed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from services.query.column_keeper import ColumnKeeper
from services.query.quarters import quarter_of
from services.query.silence import note_silent_events, silence_of
from services.query.tables import silent_events
from shoptrail.maintenance.v1.maintenance_pb2 import RunCronOutcome, RunCronRequest
from shoptrail.query.v1 import query_pb2 as pb
from shoptrail.query.v1.report_pb2 import Drift
from tests.services.query.fake_ingest import NOON, happened, timestamp
from tests.services.query.scene import Scene
from tests.services.query.test_report_answers import asked

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("hours_ago", "silent"),
    [
        (range(3, 30), True),  # Each hour, but not for the last three.
        (range(1, 30), False),  # Nothing unusual.
        (range(3, 20), False),  # Too few to tell.
        ([*range(3, 30), 40], False),  # It has paused for longer.
        ([*range(20, 40), 44], True),
        ([], False),
    ],
)
def test_an_event_is_silent_that_pauses_for_more_than_twice_as_long_as_ever(
    hours_ago: list[int], silent: bool
) -> None:
    quarters = sorted(quarter_of(NOON - hours * HOUR) for hours in hours_ago)

    since = silence_of([(quarter, 1) for quarter in quarters], now=NOON)

    expected = NOON - min(hours_ago) * HOUR + timedelta(minutes=15) if silent else None
    assert since == expected


async def noted(scene: Scene, now: datetime) -> int:
    async with scene.database.begin() as transaction:
        return await note_silent_events(transaction, 1, scene.store_uid, now=now)


async def test_silence_is_told_once_and_so_is_its_end(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await scene.project(
        *(happened(scene.store_uid, at=NOON - number * HOUR) for number in range(25)),
        happened(scene.store_uid, "Rare", at=NOON - 20 * HOUR),
    )

    assert await noted(scene, NOON + HOUR) == 0
    assert await noted(scene, NOON + 4 * HOUR) == 1
    assert await noted(scene, NOON + 5 * HOUR) == 0
    await scene.project(happened(scene.store_uid, at=NOON + 5 * HOUR))
    assert await noted(scene, NOON + 5 * HOUR) == 0
    assert await noted(scene, NOON + 60 * HOUR) == 1
    assert await noted(scene, NOON + 600 * HOUR) == 0

    told = [record for record in caplog.records if record.name == "services.query.silence"]
    assert [record.message for record in told] == [
        "event fell silent",
        "event heard again",
        "event fell silent",
        "silent event given up",
    ]
    assert told[0].__dict__["event_name"] == "Product Viewed"
    assert told[0].__dict__["silent_since"] == "2026-03-10T12:15:00+00:00"


async def test_the_job_looks_at_each_store_and_the_catalogue_says_what_is_silent(
    scene: Scene,
) -> None:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    await scene.project(
        *(happened(scene.store_uid, at=now - number * HOUR) for number in range(5, 35)),
        *(
            happened(scene.store_uid, "Heard", at=NOON - number * HOUR / 4)
            for number in range(-1, 30)
        ),
        *(happened(scene.store_uid, "Quiet", at=NOON - number * HOUR) for number in range(5, 35)),
    )
    await ColumnKeeper(scene.database, scene.columns).copy_page()

    done = await scene.cron.RunCron(RunCronRequest(job="note-silent-events"), timeout=10)
    catalogue = await scene.query.DescribeEvents(
        pb.DescribeEventsRequest(store_uid=scene.store_uid, end_time=timestamp(NOON + HOUR)),
        **asked(scene),
    )

    assert done.outcome == RunCronOutcome.RUN_CRON_OUTCOME_RAN
    async with scene.database.read() as snapshot:
        names = list((await snapshot.execute(select(silent_events.c.name))).scalars())
    assert names == ["Product Viewed"]
    # The scene's clock stands at twenty past noon.
    assert {
        event.name: event.silent_since.ToDatetime(tzinfo=UTC)
        for event in catalogue.events
        if event.HasField("silent_since")
    } == {"Quiet": NOON - 5 * HOUR + timedelta(minutes=15)}


async def test_the_catalogue_says_how_properties_have_changed(scene: Scene) -> None:
    def viewed(hours: float, **properties: object) -> None:
        words = json.dumps({"properties": properties}).encode()
        events.append(happened(scene.store_uid, at=NOON + hours * HOUR, payload=words))

    events: list[object] = []
    viewed(-1, price=1, old=1, same="a", sometimes=None)
    viewed(1, price="1", new=True, same="b", sometimes=3)
    viewed(2, price=2, same="b", sometimes=None)
    events.append(happened(scene.store_uid, "Gone", at=NOON - HOUR))
    await scene.project(*events)  # type: ignore[arg-type]
    await ColumnKeeper(scene.database, scene.columns).copy_page()

    catalogue = await scene.query.DescribeEvents(
        pb.DescribeEventsRequest(
            store_uid=scene.store_uid,
            start_time=timestamp(NOON),
            end_time=timestamp(NOON + 3 * HOUR),
        ),
        **asked(scene),
    )

    known, gone = catalogue.events
    assert (known.event_count, known.previous_event_count) == (2, 1)
    assert (gone.event_count, gone.previous_event_count, gone.name) == (0, 1, "Gone")
    assert not gone.HasField("last_time")
    assert {one.name: one.drift for one in known.properties} == {
        "price": Drift.DRIFT_TYPE,
        "old": Drift.DRIFT_GONE,
        "new": Drift.DRIFT_NEW,
        "same": Drift.DRIFT_UNSPECIFIED,
        "sometimes": Drift.DRIFT_TYPE,
    }
    price = next(one for one in known.properties if one.name == "price")
    assert (list(price.types), list(price.previous_types)) == (["number", "string"], ["number"])
