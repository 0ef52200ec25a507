"""Writes what `DescribeEvents` says of an event."""

from __future__ import annotations

from datetime import datetime

from services.query.answers.times import as_timestamp
from services.query.columns import EventDescription, PropertyDescription
from services.query.projection import type_name
from shoptrail.query.v1 import report_pb2
from shoptrail.query.v1.report_pb2 import Drift


def as_description(
    one: EventDescription, silent_since: datetime | None
) -> report_pb2.EventDescription:
    """All that is known of the events of one name."""
    return report_pb2.EventDescription(
        type=type_name(one.type),
        name=one.name,
        event_count=one.event_count,
        previous_event_count=one.previous_event_count,
        first_time=as_timestamp(one.first_time) if one.first_time else None,
        last_time=as_timestamp(one.last_time) if one.last_time else None,
        properties=[
            report_pb2.PropertyDescription(
                name=known.name,
                event_count=known.event_count,
                types=known.types,
                previous_event_count=known.previous_event_count,
                previous_types=known.previous_types,
                drift=drift_of(one, known),
            )
            for known in one.properties
        ],
        silent_since=as_timestamp(silent_since) if silent_since else None,
    )


def drift_of(event: EventDescription, known: PropertyDescription) -> Drift.ValueType:
    """How a property has changed since the range before; none if one of them has no events."""
    if not event.event_count or not event.previous_event_count:
        return Drift.DRIFT_UNSPECIFIED
    if not known.previous_event_count:
        return Drift.DRIFT_NEW
    if not known.event_count:
        return Drift.DRIFT_GONE
    # Null says that there is no value, not of which type it is.
    if set(known.types) - set(known.previous_types) - {"null"}:
        return Drift.DRIFT_TYPE
    return Drift.DRIFT_UNSPECIFIED
