"""Puts what Ingest keeps into the words of its protos, and reads what requests have in common."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from common.errors import InvalidRequest
from common.uid import is_uid
from services.ingest.rejection_repository import StoredRejection
from services.ingest.rules_repository import Settings, StoredPlan
from services.ingest.verdicts import Rejection
from shoptrail.ingest.v1 import event_pb2, rejected_event_pb2, store_settings_pb2, tracking_plan_pb2

SHOWN_BYTES = 64 * 1024
"""How much of a rejected event is shown."""


def as_timestamp(time: datetime | None) -> Timestamp | None:
    """The time as a message; None stays None."""
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message


def read_timestamp(request: Message, field: str, violations: dict[str, str]) -> datetime | None:
    """The time in a field of the request; None, and a violation, if there is none."""
    if not request.HasField(field):
        violations[field] = "is missing"
        return None
    try:
        time: datetime = getattr(request, field).ToDatetime(tzinfo=UTC)
    except ValueError:
        violations[field] = "is not a time"
        return None
    return time


def check_store_uid(uid: str) -> str:
    """The uid; raises `InvalidRequest` if it is none of a store."""
    if not is_uid("sto", uid):
        raise InvalidRequest({"store_uid": "is not the uid of a store"})
    return uid


def fault_message(fault: Rejection) -> event_pb2.Fault:
    """What is wrong with an event."""
    return event_pb2.Fault(code=fault.code, path=fault.path, message=str(fault))


def rejection_message(rejection: StoredRejection) -> rejected_event_pb2.RejectedEvent:
    """A rejected event, with as much of its text as is shown."""
    return rejected_event_pb2.RejectedEvent(
        uid=rejection.uid,
        store_uid=rejection.store_uid,
        message_id=rejection.message_id,
        type=rejection.type,  # type: ignore[arg-type]  # the same numbers
        name=rejection.name,
        fault=event_pb2.Fault(code=rejection.code, path=rejection.path, message=rejection.message),
        receive_time=as_timestamp(rejection.receive_time),
        fix_time=as_timestamp(rejection.fix_time),
        payload=shown_text(rejection.payload),
        payload_bytes=len(rejection.payload),
    )


def shown_text(payload: bytes) -> str:
    """The start of an event as text."""
    return payload[:SHOWN_BYTES].decode(errors="replace")


def settings_message(settings: Settings) -> store_settings_pb2.StoreSettings:
    """A store's settings."""
    return store_settings_pb2.StoreSettings(
        address_storage=settings.address_storage,  # type: ignore[arg-type]  # the same numbers
        catalogue_mode=settings.catalogue_mode,  # type: ignore[arg-type]
        daily_quota=settings.daily_quota,
        rejected_days=settings.rejected_days,
        update_time=as_timestamp(settings.update_time),
    )


def plan_message(plan: StoredPlan) -> tracking_plan_pb2.TrackingPlan:
    """A plan."""
    return tracking_plan_pb2.TrackingPlan(
        uid=plan.uid,
        store_uid=plan.store_uid,
        event_name=plan.event_name,
        mode=plan.mode,  # type: ignore[arg-type]  # the same numbers
        version=plan.version,
        schema=plan.schema.decode(),
        create_time=as_timestamp(plan.create_time),
        update_time=as_timestamp(plan.update_time),
        delete_time=as_timestamp(plan.delete_time),
        purge_time=as_timestamp(plan.purge_time),
    )
