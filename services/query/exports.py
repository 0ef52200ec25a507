"""Writes events as files that others read: NDJSON, CSV and Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from services.query.orders import Trust
from services.query.projection import RecordedEvent, type_name

NDJSON_TYPE, CSV_TYPE = "application/x-ndjson", "text/csv; charset=utf-8"
PARQUET_TYPE = "application/vnd.apache.parquet"

_FIELDS = (
    "uid",
    "message_id",
    "type",
    "name",
    "user_id",
    "anonymous_id",
    "occur_time",
    "receive_time",
    "trust",
    "device",
    "browser",
    "consent",
    "payload",
)
_encoder = msgspec.json.Encoder()


def write_ndjson(events: Sequence[RecordedEvent]) -> bytes:
    """A JSON object in each line."""
    return _encoder.encode_lines(
        [
            dict(zip(_FIELDS, (*_texts_of(event), _in_one_line(event.payload)), strict=True))
            for event in events
        ]
    )


def write_csv(events: Sequence[RecordedEvent], *, header: bool) -> bytes:
    """Comma-separated values, with a first line that names them if it is wanted."""
    written = io.StringIO(newline="")
    writer = csv.writer(written)
    if header:
        writer.writerow(_FIELDS)
    writer.writerows(
        (*_texts_of(event), event.payload.decode("utf-8", "replace")) for event in events
    )
    return written.getvalue().encode()


def write_parquet(events: Sequence[RecordedEvent]) -> bytes:
    """A Parquet file."""
    # Not at the top: it takes a third of a second and 60 MB, of those who export Parquet only.
    import pyarrow
    from pyarrow import parquet

    instant = pyarrow.timestamp("us", tz="UTC")
    types = {"occur_time": instant, "receive_time": instant}
    columns: list[list[Any]] = [[] for _ in _FIELDS]
    for event in events:
        uid, message_id, kind, name, user_id, anonymous_id, _, _, *rest = _texts_of(event)
        values = (
            *(uid, message_id, kind, name, user_id, anonymous_id),
            *(event.occur_time, event.receive_time, *rest),
            event.payload.decode("utf-8", "replace"),
        )
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    table = pyarrow.table(
        {
            name: pyarrow.array(column, types.get(name, pyarrow.string()))
            for name, column in zip(_FIELDS, columns, strict=True)
        }
    )
    written = io.BytesIO()
    parquet.write_table(table, written, compression="zstd")
    return written.getvalue()


def _texts_of(event: RecordedEvent) -> tuple[str, ...]:
    """All but the payload, in the order of the fields."""
    kind = type_name(event.type)
    return (
        event.uid,
        event.message_id,
        kind,
        event.name if kind == "track" else event.page_name,
        event.user_id,
        event.anonymous_id,
        _time_text(event.occur_time),
        _time_text(event.receive_time),
        Trust(event.trust).name.lower(),
        event.device,
        event.browser,
        event.consent,
    )


def _time_text(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _in_one_line(payload: bytes) -> msgspec.Raw:
    """The payload as JSON that a line can hold; it may have been sent in several."""
    if b"\n" in payload or b"\r" in payload:
        payload = msgspec.json.format(payload, indent=-1)
    return msgspec.Raw(payload)
