"""Events are exported page by page, as files that others read."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from typing import Any

import grpc
import pytest
from pyarrow import parquet

from common.uid import new_uid
from shoptrail.ingest.v1.event_pb2 import Event
from shoptrail.query.v1 import export_pb2 as pb
from shoptrail.query.v1.export_pb2 import ExportFormat
from tests.conftest import key_metadata
from tests.services.query.fake_ingest import NOON, PAGE, happened, timestamp
from tests.services.query.scene import Scene, violations_of
from tests.services.query.test_report_answers import DAY, asked

NDJSON, CSV, PARQUET = (
    ExportFormat.EXPORT_FORMAT_NDJSON,
    ExportFormat.EXPORT_FORMAT_CSV,
    ExportFormat.EXPORT_FORMAT_PARQUET,
)
ODD = '{"event": "Tee, \\"grün\\" 🛒",\r\n "n": 12345678901234567890.10, "a": [null]}'


async def export(scene: Scene, **fields: Any) -> list[pb.ExportEventsResponse]:
    """All pages."""
    request = pb.ExportEventsRequest(store_uid=scene.store_uid, **fields)
    pages = []
    while True:
        page = await scene.query.ExportEvents(request, **asked(scene, "events:read"))
        pages.append(page)
        request.page_token = page.next_page_token
        if not request.page_token:
            return pages


def some(scene: Scene, count: int) -> list[Event]:
    events = [
        happened(scene.store_uid, f"Step {number % 3}", at=NOON - number * DAY / 24)
        for number in range(count)
    ]
    events[0].payload = ODD.encode()
    events[1].enrichment = b'{"confirmed": true, "browser": {"name": "Firefox"}}'
    return events


def rows_in(content: bytes, written_as: ExportFormat.ValueType) -> list[dict[str, Any]]:
    if written_as == NDJSON:
        return [json.loads(line) for line in content.splitlines()]
    if written_as == CSV:
        return list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    rows: list[dict[str, Any]] = parquet.read_table(io.BytesIO(content)).to_pylist()
    return rows


@pytest.mark.parametrize("written_as", [NDJSON, CSV, PARQUET])
async def test_an_export_has_each_event_once_and_says_how_far_it_is(
    scene: Scene, written_as: ExportFormat.ValueType
) -> None:
    events = some(scene, 23)
    await scene.project(*events, happened(new_uid("sto")))

    pages = await export(scene, format=written_as, page_size=10)

    assert [page.event_count for page in pages] == [10, 10, 3]
    assert [page.exported_count for page in pages] == [10, 20, 23]
    assert {page.total_count for page in pages} == {23}
    rows = (
        [row for page in pages for row in rows_in(page.content, written_as)]
        if written_as == PARQUET
        else rows_in(b"".join(page.content for page in pages), written_as)
    )
    assert [row["uid"] for row in rows] == [event.uid for event in events]
    first, second = rows[:2]
    assert (first["type"], first["name"], first["user_id"]) == ("track", "Step 0", "ada")
    assert (second["trust"], second["browser"]) == ("confirmed", "Firefox")
    if written_as == NDJSON:
        assert first["payload"] == json.loads(ODD)
        assert "12345678901234567890.10" in pages[0].content.decode()
    else:
        assert first["payload"] == ODD
    time = first["occur_time"]
    assert (time if written_as == PARQUET else datetime.fromisoformat(time)) == NOON


async def test_an_export_goes_on_where_it_broke_off_though_more_has_come(scene: Scene) -> None:
    events = some(scene, 6)
    await scene.project(*events)
    request = pb.ExportEventsRequest(store_uid=scene.store_uid, page_size=4)
    first = await scene.query.ExportEvents(request, **asked(scene, "events:read"))
    await scene.project(happened(scene.store_uid, "New", at=NOON + DAY))
    request.page_token = first.next_page_token

    for _ in range(2):  # As often as it takes.
        second = await scene.query.ExportEvents(request, **asked(scene, "events:read"))

        assert [row["uid"] for row in rows_in(second.content, NDJSON)] == [
            event.uid for event in events[4:]
        ]
        assert (second.exported_count, second.total_count) == (6, 6)
        assert not second.next_page_token


async def test_an_export_is_of_what_was_asked_for(scene: Scene) -> None:
    await scene.project(*some(scene, 9), happened(scene.store_uid, "Home", of=PAGE))

    [page] = await export(
        scene,
        name="Step 1",
        start_time=timestamp(NOON - DAY / 4),
        end_time=timestamp(NOON),
    )
    [nothing] = await export(scene, name="Step 7", format=PARQUET)

    assert {row["name"] for row in rows_in(page.content, NDJSON)} == {"Step 1"}
    assert page.total_count == 2
    assert rows_in(nothing.content, PARQUET) == []


async def test_pages_of_large_events_stay_small(scene: Scene) -> None:
    events = [happened(scene.store_uid, payload=b'"' + b"x" * 1_500_000 + b'"') for _ in range(5)]
    await scene.project(*events)

    assert [page.event_count for page in await export(scene)] == [2, 2, 1]
    assert [page.event_count for page in await export(scene, format=CSV)] == [1] * 5


async def test_a_token_is_bound_to_the_call_and_wrong_fields_are_named(scene: Scene) -> None:
    await scene.project(*some(scene, 3))
    token = (await export(scene, page_size=1))[0].next_page_token
    call = asked(scene, "events:read")
    with pytest.raises(grpc.aio.AioRpcError) as other_format:
        await scene.query.ExportEvents(
            pb.ExportEventsRequest(store_uid=scene.store_uid, format=CSV, page_token=token), **call
        )
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await scene.query.ExportEvents(
            pb.ExportEventsRequest(
                store_uid="sto_x",
                format=9,  # type: ignore[arg-type]
                page_size=-1,
                start_time=timestamp(NOON),
                end_time=timestamp(NOON),
            ),
            timeout=5,
            metadata=key_metadata("events:read", store_uid="sto_x"),
        )
    with pytest.raises(grpc.aio.AioRpcError) as lacks_scope:
        await scene.query.ExportEvents(
            pb.ExportEventsRequest(store_uid=scene.store_uid), **asked(scene)
        )

    assert other_format.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert sorted(violations_of(failure)) == ["format", "page_size", "start_time", "store_uid"]
    assert lacks_scope.value.code() is grpc.StatusCode.PERMISSION_DENIED
