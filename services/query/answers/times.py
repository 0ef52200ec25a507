"""Writes times."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from services.query.questions import Question


def as_timestamps(question: Question) -> list[Timestamp]:
    """When the periods begin."""
    return [as_timestamp(time) for time in question.boundaries[:-1]]


def as_timestamp(time: datetime) -> Timestamp:
    """The time as a message."""
    message = Timestamp()
    message.FromDatetime(time)
    return message
