"""The stream of what is accepted and rejected."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

from common.errors import ScopeMissing
from shoptrail.ingest.v1 import ingest_pb2, rejected_event_pb2
from shoptrail.query.v1 import query_pb2, report_pb2
from tests.gateway.conftest import SECRET_KEY, STORE, Mesh, Running

LIVE = f"/v1/stores/{STORE}/events:live"
KEY = {"Authorization": f"Bearer {SECRET_KEY}"}


class Shop:
    """What Query and Ingest tell: each call takes what is next, and waits if there is nothing."""

    def __init__(self, mesh: Mesh) -> None:
        self.accepted: asyncio.Queue[list[report_pb2.RecordedEvent]] = asyncio.Queue()
        self.rejected: list[rejected_event_pb2.RejectedEvent] = []
        self.tokens: list[str] = []
        mesh.services["query"].answers["TailEvents"] = self.tail
        mesh.ingest.answers["ListRejectedEvents"] = self.list_rejected

    async def tail(self, request: query_pb2.TailEventsRequest) -> query_pb2.TailEventsResponse:
        self.tokens.append(request.page_token)
        events = await self.accepted.get() if request.page_token else []
        return query_pb2.TailEventsResponse(
            events=events, next_page_token=f"token-{len(self.tokens)}"
        )

    async def list_rejected(
        self, request: ingest_pb2.ListRejectedEventsRequest
    ) -> ingest_pb2.ListRejectedEventsResponse:
        assert request.store_uid == STORE
        latest = list(reversed(self.rejected))
        return ingest_pb2.ListRejectedEventsResponse(rejected_events=latest[: request.page_size])


async def messages_of(response: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    """The id and the data of each message, as a browser reads them."""
    name, data = "", []
    async for line in response.aiter_lines():
        if line.startswith("id: "):
            name = line[4:]
        elif line.startswith("data: "):
            data.append(line[6:])
        elif not line and data:
            yield name, json.loads("\n".join(data))
            data = []


def viewed(uid: str) -> report_pb2.RecordedEvent:
    return report_pb2.RecordedEvent(uid=uid, name="Viewed", payload=b'{\n"event":\r\n"Viewed"}')


async def test_events_are_told_once_as_they_come(gateway: Running, mesh: Mesh) -> None:
    shop = Shop(mesh)
    shop.rejected.append(rejected_event_pb2.RejectedEvent(uid="rej_old"))
    async with gateway.http.stream("GET", LIVE, headers=KEY) as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-store"
        messages = messages_of(response)

        assert await anext(messages) == ("token-1", {"accepted": [], "rejected": []})
        shop.rejected.append(rejected_event_pb2.RejectedEvent(uid="rej_new"))
        shop.accepted.put_nowait([viewed("evt_1")])
        name, told = await anext(messages)
        shop.accepted.put_nowait([])
        _, nothing = await anext(messages)

    assert name == "token-2"
    assert [event["uid"] for event in told["accepted"]] == ["evt_1"]
    assert told["accepted"][0]["payload"] == {"event": "Viewed"}
    assert [event["uid"] for event in told["rejected"]] == ["rej_new"]
    assert nothing == {"accepted": [], "rejected": []}


async def test_a_browser_that_lost_the_stream_goes_on_where_it_was(
    gateway: Running, mesh: Mesh
) -> None:
    shop = Shop(mesh)
    shop.accepted.put_nowait([viewed("evt_2")])

    headers = KEY | {"Last-Event-ID": "token-of-before"}
    async with gateway.http.stream("GET", LIVE, headers=headers) as response:
        _, told = await anext(messages_of(response))

    assert shop.tokens[0] == "token-of-before"
    assert [event["uid"] for event in told["accepted"]] == ["evt_2"]


async def test_who_may_not_read_events_is_told_so(gateway: Running, mesh: Mesh) -> None:
    async def refuse(request: query_pb2.TailEventsRequest) -> query_pb2.TailEventsResponse:
        raise ScopeMissing("events:read")

    mesh.services["query"].answers["TailEvents"] = refuse

    refused = await gateway.http.get(LIVE, headers=KEY)

    assert refused.status_code == 403
    assert (await gateway.http.get(LIVE)).status_code == 401


async def test_the_stream_ends_with_its_key(gateway: Running, mesh: Mesh, clock: Any) -> None:
    shop = Shop(mesh)
    async with gateway.http.stream("GET", LIVE, headers=KEY) as response:
        messages = messages_of(response)
        await anext(messages)
        del mesh.keys_by_text[SECRET_KEY]
        clock.move_on(11)
        shop.accepted.put_nowait([viewed("evt_1")])

        assert [told async for told in messages] == []


async def test_the_stream_ends_when_the_process_is_about_to(gateway: Running, mesh: Mesh) -> None:
    shop = Shop(mesh)
    async with gateway.http.stream("GET", LIVE, headers=KEY) as response:
        messages = messages_of(response)
        await anext(messages)
        gateway.readiness.start_draining()
        shop.accepted.put_nowait([])

        assert [told async for told in messages] == []


async def test_nobody_is_asked_any_more_when_the_reader_is_gone(
    gateway: Running, mesh: Mesh
) -> None:
    shop = Shop(mesh)
    async with gateway.http.stream("GET", LIVE, headers=KEY) as response:
        await anext(messages_of(response))
    for _ in range(3):
        shop.accepted.put_nowait([])
    asked = 0
    async with asyncio.timeout(5):
        while asked != len(shop.tokens):
            asked = len(shop.tokens)
            await asyncio.sleep(0.05)

    assert asked <= 4
    assert shop.accepted.qsize() >= 1
