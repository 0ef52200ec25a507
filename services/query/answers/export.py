"""Answers `ExportEvents`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from common.db import Database
from common.errors import InvalidRequest
from common.page_token import PageTokens, read_page_size
from services.query import repository
from services.query.exports import (
    CSV_TYPE,
    NDJSON_TYPE,
    PARQUET_TYPE,
    write_csv,
    write_ndjson,
    write_parquet,
)
from services.query.projection import RecordedEvent
from services.query.questions import check_store, read_time
from services.query.repository import Place
from shoptrail.query.v1 import export_pb2
from shoptrail.query.v1.export_pb2 import ExportFormat

_EVENTS, _MOST_EVENTS = 5000, 20_000
_PAGE_BYTES = 4 * 1024 * 1024
# What an event takes besides its payload; and in CSV each quote in a payload is doubled.
_EVENT_BYTES = 200
_CSV_GROWTH = 2


async def answer(
    request: export_pb2.ExportEventsRequest, database: Database, page_tokens: PageTokens
) -> export_pb2.ExportEventsResponse:
    """A page of the export."""
    violations: dict[str, str] = {}
    check_store(request.store_uid, violations)
    start = read_time(request, "start_time", violations)
    end = read_time(request, "end_time", violations)
    if start is not None and end is not None and start >= end:
        violations["start_time"] = "must be before end_time"
    written_as = request.format or ExportFormat.EXPORT_FORMAT_NDJSON
    if written_as not in ExportFormat.values():
        violations["format"] = "must be NDJSON, CSV or PARQUET"
    try:
        page_size = read_page_size(request.page_size, default=_EVENTS, largest=_MOST_EVENTS)
    except InvalidRequest as error:
        violations |= error.violations
    if violations:
        raise InvalidRequest(violations)
    token = page_tokens.open(request)
    after = (datetime.fromisoformat(token[0]), int(token[1])) if token else None
    exported_count, total_count = (int(token[2]), int(token[3])) if token else (0, 0)
    async with database.read() as snapshot:
        if token is None:
            total_count = await repository.count_events(
                snapshot,
                store_uid=request.store_uid,
                name=request.name,
                start_time=start,
                end_time=end,
            )
        places = await repository.list_places(
            snapshot,
            store_uid=request.store_uid,
            name=request.name,
            start_time=start,
            end_time=end,
            after=after,
            limit=page_size + 1,
        )
        page = _page_of(
            places[:page_size],
            growth=_CSV_GROWTH if written_as == ExportFormat.EXPORT_FORMAT_CSV else 1,
        )
        events = await repository.get_events(
            snapshot, store_uid=request.store_uid, ids=[place.id for place in page]
        )
    # In a thread: to write thousands of events would hold up everyone else.
    content, content_type = await asyncio.to_thread(_write, events, written_as, first=token is None)
    exported_count += len(events)
    response = export_pb2.ExportEventsResponse(
        content=content,
        content_type=content_type,
        event_count=len(events),
        exported_count=exported_count,
        # More may have come since the export began.
        total_count=max(total_count, exported_count),
    )
    if len(page) < len(places):
        last = page[-1]
        response.next_page_token = page_tokens.seal(
            request, [last.occur_time.isoformat(), last.id, exported_count, total_count]
        )
    return response


def _write(
    events: Sequence[RecordedEvent], written_as: ExportFormat.ValueType, *, first: bool
) -> tuple[bytes, str]:
    match written_as:
        case ExportFormat.EXPORT_FORMAT_CSV:
            return write_csv(events, header=first), CSV_TYPE
        case ExportFormat.EXPORT_FORMAT_PARQUET:
            return write_parquet(events), PARQUET_TYPE
        case _:
            return write_ndjson(events), NDJSON_TYPE


def _page_of(places: Sequence[Place], *, growth: int) -> list[Place]:
    """The first of the places whose events fit a page together, and at least one."""
    page: list[Place] = []
    size = 0
    for place in places:
        size += place.payload_bytes * growth + _EVENT_BYTES
        if page and size > _PAGE_BYTES:
            break
        page.append(place)
    return page
