from datetime import timedelta

from services.query.freshness import Cursor, Sightings
from tests.services.query.fake_ingest import NOON

LATER = NOON + timedelta(minutes=5)


def test_an_answer_is_as_old_as_its_oldest_shard() -> None:
    cursors = [Cursor(0, position=4, as_of_time=LATER), Cursor(1, position=2, as_of_time=NOON)]

    freshness = Sightings().freshness_of(cursors)

    assert (freshness.time, freshness.event_count) == (NOON, 6)


def test_the_age_is_unknown_while_a_shard_has_not_been_read() -> None:
    cursors = [Cursor(0, position=4, as_of_time=LATER), Cursor(1, position=0, as_of_time=None)]

    assert Sightings().freshness_of(cursors).time is None
    assert Sightings().freshness_of([]).time is None


def test_what_was_seen_at_rest_makes_a_snapshot_fresher_but_not_an_older_one() -> None:
    sightings = Sightings()
    sightings.note(Cursor(0, position=5, as_of_time=LATER))

    assert sightings.freshness_of([Cursor(0, position=5, as_of_time=NOON)]).time == LATER
    assert sightings.freshness_of([Cursor(0, position=6, as_of_time=None)]).time == LATER
    assert sightings.freshness_of([Cursor(0, position=4, as_of_time=NOON)]).time == NOON
