from __future__ import annotations

import base64
from datetime import UTC, timedelta

import grpc
import pytest

from common.uid import new_uid
from shoptrail.ingest.v1.event_pb2 import Event, EventType
from shoptrail.query.v1.query_pb2 import ListEventsRequest
from shoptrail.query.v1.report_pb2 import RecordedEvent, Trust
from tests.services.query.fake_ingest import IDENTIFY, NOON, PAGE, happened, timestamp
from tests.services.query.scene import Scene, violations_of

MINUTE = timedelta(minutes=1)


async def all_pages(scene: Scene, request: ListEventsRequest) -> list[list[RecordedEvent]]:
    pages = []
    while True:
        response = await scene.list(request)
        pages.append(list(response.events))
        if not response.next_page_token:
            return pages
        request.page_token = response.next_page_token


def uids_of(events: list[Event] | list[RecordedEvent]) -> list[str]:
    return [event.uid for event in events]


async def test_pages_list_each_event_once_the_latest_first(scene: Scene) -> None:
    # Of every three one has another time, so that pages end amid events of the same time.
    events = [happened(scene.store_uid, at=NOON + MINUTE * (number // 3)) for number in range(20)]
    await scene.project(*events)

    pages = await all_pages(scene, ListEventsRequest(page_size=4))

    assert [len(page) for page in pages] == [4, 4, 4, 4, 4]
    listed = [event for page in pages for event in page]
    assert uids_of(listed) == uids_of(events)[::-1]


async def test_events_that_arrive_meanwhile_disturb_no_page(scene: Scene) -> None:
    events = [happened(scene.store_uid, at=NOON + MINUTE * number) for number in range(10)]
    await scene.project(*events)
    request = ListEventsRequest(page_size=3)
    first = await scene.list(request)
    newer = happened(scene.store_uid, at=NOON + MINUTE * 50)
    older = happened(scene.store_uid, at=NOON + MINUTE * 2)
    await scene.project(newer, older)

    request.page_token = first.next_page_token
    rest = [event for page in await all_pages(scene, request) for event in page]

    listed = uids_of([*first.events, *rest])
    assert listed == [*uids_of(events)[:2:-1], older.uid, *uids_of(events)[2::-1]]


async def test_an_event_is_listed_as_it_was_received(scene: Scene) -> None:
    payload = '{"event":"Zwölf 🛒","n":1e400}'.encode()
    event = happened(scene.store_uid, "Zwölf 🛒 ", at=NOON + timedelta(microseconds=7))
    event.payload = payload
    await scene.project(event)

    [listed] = (await scene.list(ListEventsRequest())).events

    assert listed == RecordedEvent(
        uid=event.uid,
        message_id=event.message_id,
        type="track",
        name="Zwölf 🛒 ",
        user_id="ada",
        anonymous_id="anon-1",
        occur_time=event.occur_time,
        receive_time=event.receive_time,
        payload=payload,
        trust=Trust.TRUST_CLAIMED,
    )


async def test_what_the_shop_itself_vouches_for_is_listed_as_confirmed(scene: Scene) -> None:
    event = happened(scene.store_uid, "Order Completed")
    event.enrichment = b'{"browser":{"name":"Safari"},"confirmed":true}'
    await scene.project(event)

    [listed] = (await scene.list(ListEventsRequest())).events

    assert listed.trust == Trust.TRUST_CONFIRMED


@pytest.mark.parametrize(
    ("of", "sent", "type_name", "name"),
    [
        (PAGE, "Home", "page", "Home"),
        (PAGE, "", "page", ""),
        (EventType.EVENT_TYPE_SCREEN, "Cart", "screen", "Cart"),
        (IDENTIFY, "", "identify", ""),
    ],
)
async def test_pages_and_screens_are_listed_with_their_own_name(
    scene: Scene, of: EventType.ValueType, sent: str, type_name: str, name: str
) -> None:
    await scene.project(happened(scene.store_uid, sent, of=of))

    [listed] = (await scene.list(ListEventsRequest())).events

    assert (listed.type, listed.name) == (type_name, name)


async def test_a_name_selects_track_events_of_it_or_all_events_of_a_type(scene: Scene) -> None:
    viewed = happened(scene.store_uid, "Viewed", at=NOON)
    padded = happened(scene.store_uid, "Viewed ", at=NOON + MINUTE)
    home = happened(scene.store_uid, "Home", of=PAGE, at=NOON + 2 * MINUTE)
    cart = happened(scene.store_uid, "Viewed", of=PAGE, at=NOON + 3 * MINUTE)
    await scene.project(viewed, padded, home, cart)

    async def named(name: str) -> list[str]:
        response = await scene.list(ListEventsRequest(name=name))
        return uids_of(list(response.events))

    assert await named("Viewed") == [viewed.uid]
    assert await named("Viewed ") == [padded.uid]
    assert await named("page") == [cart.uid, home.uid]
    assert await named("missing") == []


async def test_a_range_includes_its_start_and_not_its_end(scene: Scene) -> None:
    events = [happened(scene.store_uid, at=NOON + MINUTE * number) for number in range(4)]
    await scene.project(*events)

    response = await scene.list(
        ListEventsRequest(start_time=events[1].occur_time, end_time=events[3].occur_time)
    )

    assert uids_of(list(response.events)) == [events[2].uid, events[1].uid]


async def test_only_the_events_of_the_store_are_listed(scene: Scene) -> None:
    await scene.project(happened(new_uid("sto")))

    assert not (await scene.list(ListEventsRequest())).events


async def test_a_page_ends_where_its_payloads_would_exceed_4_mib(scene: Scene) -> None:
    large = b'"%s"' % (b"x" * 1_500_000)
    events = [
        happened(scene.store_uid, at=NOON + MINUTE * number, payload=large) for number in range(4)
    ]
    await scene.project(*events)
    await scene.project(
        happened(scene.store_uid, at=NOON - MINUTE, payload=b'"%s"' % (b"x" * 5_000_000))
    )

    pages = await all_pages(scene, ListEventsRequest())

    assert [len(page) for page in pages] == [2, 2, 1]


async def test_a_page_token_that_was_altered_is_refused(scene: Scene) -> None:
    await scene.project(*(happened(scene.store_uid) for _ in range(3)))
    token = (await scene.list(ListEventsRequest(page_size=1))).next_page_token
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[-1] ^= 1
    forged = base64.urlsafe_b64encode(raw).decode().rstrip("=")

    for bad in (forged, "nonsense", token + "x"):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await scene.list(ListEventsRequest(page_size=1, page_token=bad))
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_page_token_is_good_for_the_same_question_only(scene: Scene) -> None:
    other_store = new_uid("sto")
    await scene.project(*(happened(scene.store_uid) for _ in range(3)))
    token = (await scene.list(ListEventsRequest(page_size=1))).next_page_token

    for request in (
        ListEventsRequest(page_token=token, name="page"),
        ListEventsRequest(page_token=token, start_time=timestamp(NOON)),
        ListEventsRequest(page_token=token, store_uid=other_store),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await scene.list(request)
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    larger = await scene.list(ListEventsRequest(page_token=token, page_size=9))
    assert len(larger.events) == 2


async def test_everything_wrong_with_a_request_is_named_at_once(scene: Scene) -> None:
    request = ListEventsRequest(store_uid="key_nonsense", page_size=-1)
    request.start_time.nanos = -1
    request.end_time.seconds = 10**15

    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await scene.list(request)

    assert sorted(violations_of(failure)) == ["end_time", "page_size", "start_time", "store_uid"]


async def test_an_empty_range_is_refused(scene: Scene) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await scene.list(ListEventsRequest(start_time=timestamp(NOON), end_time=timestamp(NOON)))

    assert list(violations_of(failure)) == ["start_time"]


async def test_the_list_says_how_fresh_it_is(scene: Scene) -> None:
    await scene.project(happened(scene.store_uid, at=NOON), happened(scene.store_uid, at=NOON))

    as_of = (await scene.list(ListEventsRequest(page_size=1))).as_of

    assert as_of.position == 2
    assert as_of.time.ToDatetime(tzinfo=UTC) == NOON + timedelta(seconds=1)
