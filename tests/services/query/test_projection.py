import pytest

from common.uid import new_uid
from services.query.projection import LogDisorder, fold, type_name
from shoptrail.ingest.v1.event_pb2 import Event
from tests.services.query.fake_ingest import PAGE, happened

STORE = new_uid("sto")


def placed(*events: Event, after: int = 0) -> list[Event]:
    for position, event in enumerate(events, start=after + 1):
        event.position = position
    return list(events)


def test_pages_are_named_by_their_type_and_listed_with_their_name() -> None:
    [event] = fold(placed(happened(STORE, "Home", of=PAGE)), shard=0, after_position=0).events

    assert (event.name, event.page_name) == ("page", "Home")


def test_folding_in_parts_gives_the_same_facts_as_at_once() -> None:
    events = placed(*(happened(STORE, name) for name in "abaacb"))
    whole = fold(events, shard=3, after_position=0)

    for cut in range(len(events) + 1):
        first = fold(events[:cut], shard=3, after_position=0)
        second = fold(events[cut:], shard=3, after_position=first.position)
        assert second.position == whole.position
        assert [*first.facts, *second.facts] == whole.facts


def test_events_of_two_shards_have_different_ids() -> None:
    ids = {
        fold(placed(happened(STORE)), shard=shard, after_position=0).events[0].id
        for shard in range(3)
    }

    assert len(ids) == 3


@pytest.mark.parametrize("positions", [[2], [1, 3], [1, 1], [2, 1], [0]])
def test_positions_that_do_not_follow_are_disorder(positions: list[int]) -> None:
    events = [happened(STORE) for _ in positions]
    for event, position in zip(events, positions, strict=True):
        event.position = position

    with pytest.raises(LogDisorder):
        fold(events, shard=0, after_position=0)


def test_a_type_that_is_not_known_here_is_called_by_its_number() -> None:
    assert (type_name(3), type_name(77)) == ("page", "type_77")
