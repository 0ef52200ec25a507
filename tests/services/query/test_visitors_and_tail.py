"""A visitor's timeline, the tail of the log, and the catalogue of events."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from common.uid import new_uid
from services.query.column_keeper import ColumnKeeper
from shoptrail.ingest.v1.event_pb2 import Event, EventType
from shoptrail.query.v1 import query_pb2 as pb
from tests.conftest import key_metadata
from tests.services.query.fake_ingest import ALIAS, IDENTIFY, NOON, PAGE, TRACK, happened, timestamp
from tests.services.query.scene import Scene, violations_of


def did(
    scene: Scene,
    name: str,
    *,
    minute: int = 0,
    browser: str = "",
    user: str = "",
    of: EventType.ValueType = TRACK,
    **words: Any,
) -> Event:
    event = happened(
        scene.store_uid,
        name,
        at=NOON + timedelta(minutes=minute),
        of=of,
        payload=json.dumps(words).encode(),
    )
    event.anonymous_id, event.user_id = browser, user
    return event


def asked(scene: Scene, scope: str = "events:read") -> dict[str, Any]:
    return {"timeout": 10, "metadata": key_metadata(scope, store_uid=scene.store_uid)}


async def copied(scene: Scene) -> None:
    while await ColumnKeeper(scene.database, scene.columns).copy_page():
        pass


@pytest.mark.parametrize("whose", [{"user_id": "ada"}, {"user_id": "ada2"}, {"anonymous_id": "b1"}])
async def test_a_timeline_has_all_that_a_person_did_under_any_id(
    scene: Scene, whose: dict[str, str]
) -> None:
    await scene.project(
        did(scene, "before", minute=1, browser="b1"),
        did(scene, "", minute=2, of=IDENTIFY, browser="b1", user="ada"),
        did(scene, "on the server", minute=3, user="ada"),
        did(scene, "", minute=4, of=ALIAS, user="ada2", previousId="ada"),
        did(scene, "later", minute=5, user="ada2"),
        did(scene, "somebody else", minute=6, browser="b2"),
        did(scene, "known by name", minute=7, browser="b1", user="bob"),
    )
    await copied(scene)
    request = pb.ListVisitorEventsRequest(store_uid=scene.store_uid, page_size=2, **whose)
    names = []
    while True:
        page = await scene.query.ListVisitorEvents(request, **asked(scene))
        names += [event.name or event.type for event in page.events]
        request.page_token = page.next_page_token
        if not request.page_token:
            break

    assert names == ["later", "alias", "on the server", "identify", "before"]


async def test_somebody_who_never_was_has_no_timeline(scene: Scene) -> None:
    await scene.project(did(scene, "x", browser="b1"))
    await copied(scene)

    page = await scene.query.ListVisitorEvents(
        pb.ListVisitorEventsRequest(store_uid=scene.store_uid, user_id="nobody"), **asked(scene)
    )

    assert (list(page.events), page.next_page_token) == ([], "")


async def test_a_tail_lists_what_comes_once_and_in_the_order_in_which_it_came(
    scene: Scene,
) -> None:
    await scene.project(did(scene, "before", browser="b1"))
    request = pb.TailEventsRequest(store_uid=scene.store_uid, page_size=2)
    first = await scene.query.TailEvents(request, **asked(scene))
    assert list(first.events) == []

    await scene.project(
        did(scene, "a", minute=9, browser="b1"),
        happened(new_uid("sto"), "elsewhere"),
        did(scene, "b", minute=3, browser="b1"),
        did(scene, "c", minute=6, browser="b1"),
    )
    names = []
    request.page_token = first.next_page_token
    for _ in range(3):
        page = await scene.query.TailEvents(request, **asked(scene))
        names.append([event.name for event in page.events])
        request.page_token = page.next_page_token

    assert names == [["a", "b"], ["c"], []]


async def test_a_tail_waits_for_what_comes(scene: Scene) -> None:
    await scene.project(did(scene, "before", browser="b1"))
    request = pb.TailEventsRequest(store_uid=scene.store_uid, wait=Duration(seconds=2))
    request.page_token = (await scene.query.TailEvents(request, **asked(scene))).next_page_token

    waiting = asyncio.create_task(_tail(scene, request))
    await scene.project(did(scene, "news", browser="b1"))

    assert await waiting == ["news"]


async def _tail(scene: Scene, request: pb.TailEventsRequest) -> list[str]:
    page = await scene.query.TailEvents(request, **asked(scene))
    return [event.name for event in page.events]


async def test_the_catalogue_tells_of_properties_and_the_types_they_were_seen_with(
    scene: Scene,
) -> None:
    await scene.project(
        did(scene, "Paid", browser="b", properties={"total": 1.5, "by/what": "card", "a~b": []}),
        did(scene, "Paid", minute=5, browser="b", properties={"total": "2", "by/what": None}),
        did(scene, "Paid", minute=9, browser="b", properties={"total": 3}),
        did(scene, "", of=PAGE, browser="b", properties={"new": True, "in": {"x": 1}}),
    )
    await copied(scene)

    report = await scene.query.DescribeEvents(
        pb.DescribeEventsRequest(store_uid=scene.store_uid, end_time=timestamp(NOON + _HOUR)),
        **asked(scene, "reports:read"),
    )

    assert [(event.type, event.name, event.event_count) for event in report.events] == [
        ("track", "Paid", 3),
        ("page", "page", 1),
    ]
    paid, page = report.events
    assert paid.first_time.ToDatetime(tzinfo=NOON.tzinfo) == NOON
    assert paid.last_time.ToDatetime(tzinfo=NOON.tzinfo) == NOON + timedelta(minutes=9)
    assert {one.name: (one.event_count, list(one.types)) for one in paid.properties} == {
        "total": (3, ["number", "string"]),
        "by/what": (2, ["null", "string"]),
        "a~b": (1, ["array"]),
    }
    assert {one.name: list(one.types) for one in page.properties} == {
        "new": ["boolean"],
        "in": ["object"],
    }


_HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("method", "request_message", "wrong"),
    [
        ("ListVisitorEvents", pb.ListVisitorEventsRequest(page_size=-1), ["page_size", "user_id"]),
        (
            "ListVisitorEvents",
            pb.ListVisitorEventsRequest(user_id="a", anonymous_id="b"),
            ["user_id"],
        ),
        (
            "TailEvents",
            pb.TailEventsRequest(page_size=-1, wait=Duration(seconds=3)),
            ["page_size", "wait"],
        ),
        ("TailEvents", pb.TailEventsRequest(wait=Duration(seconds=-1)), ["wait"]),
        (
            "DescribeEvents",
            pb.DescribeEventsRequest(start_time=timestamp(NOON), end_time=timestamp(NOON - _HOUR)),
            ["start_time"],
        ),
    ],
)
async def test_everything_wrong_with_a_list_is_named_at_once(
    scene: Scene, method: str, request_message: Any, wrong: list[str]
) -> None:
    request_message.store_uid = "sto_x"
    metadata = key_metadata("events:read", "reports:read", store_uid="sto_x")
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await getattr(scene.query, method)(request_message, timeout=5, metadata=metadata)

    assert sorted(violations_of(failure)) == sorted([*wrong, "store_uid"])


@pytest.mark.parametrize("method", ["ListVisitorEvents", "TailEvents"])
async def test_a_token_of_another_list_is_refused(scene: Scene, method: str) -> None:
    message = getattr(pb, f"{method}Request")(store_uid=scene.store_uid, page_token="made up")
    if method == "ListVisitorEvents":
        message.user_id = "ada"

    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await getattr(scene.query, method)(message, **asked(scene))

    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
