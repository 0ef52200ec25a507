"""What requests ask for: read, and refused with everything that is wrong named at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from common.errors import InvalidRequest
from common.page_token import read_page_size
from common.uid import is_uid
from services.keys.grants import DEFAULT_SCOPES, grantable_scopes
from services.keys.key_text import Kind
from services.keys.messages import KINDS
from services.keys.origins import MOST_HOSTS, read_hosts
from services.keys.repository import ApiKey, Use
from shoptrail.keys.v1 import keys_pb2

MOST_USES = 1000

_LONGEST_NAME = 255
_PAGE_SIZE, _LARGEST_PAGE_SIZE = 50, 500
_SHORTEST_PERIOD, _LONGEST_PERIOD = timedelta(days=1), timedelta(days=5 * 365)
_OVERLAP, _LONGEST_OVERLAP = timedelta(days=1), timedelta(days=90)
_LONGEST_ORIGIN, _LONGEST_SDK = 255, 64
_ONLY_PUBLISHABLE = "only PUBLISHABLE keys have that"


@dataclass(frozen=True, slots=True)
class KeyOrder:
    """A key that is to be made."""

    kind: Kind
    scopes: Sequence[str]
    expire_time: datetime | None
    allowed_origins: Sequence[str]
    rotate_seconds: int | None


@dataclass(frozen=True, slots=True)
class Rotation:
    """How a key is to be rotated."""

    overlap: timedelta
    expire_time: datetime | None


def read_store_name(name: str) -> str:
    """The name; raises `InvalidRequest` if it is none."""
    if not 1 <= len(name) <= _LONGEST_NAME:
        raise InvalidRequest({"display_name": f"must have 1 to {_LONGEST_NAME} characters"})
    return name


def read_asked_page_size(asked: int) -> int:
    """The page size to use; raises `InvalidRequest` if a negative one was asked for."""
    return read_page_size(asked, default=_PAGE_SIZE, largest=_LARGEST_PAGE_SIZE)


def read_key_order(request: keys_pb2.CreateKeyRequest, *, now: datetime) -> KeyOrder:
    """What key is asked for."""
    faults: dict[str, str] = {}
    if len(request.display_name) > _LONGEST_NAME:
        faults["display_name"] = f"must have at most {_LONGEST_NAME} characters"
    expire_time = _read_expire_time(request, faults, now=now)
    hosts = _read_hosts(request.allowed_origins, faults)
    rotate_seconds = _read_period(request, faults) if request.HasField("rotate_period") else None

    kind = KINDS.get(request.kind)
    if kind is None:
        faults["kind"] = "must be PUBLISHABLE, SECRET or CRON"
        raise InvalidRequest(faults)
    if kind is not Kind.PUBLISHABLE:
        if request.allowed_origins:
            faults["allowed_origins"] = _ONLY_PUBLISHABLE
        if request.HasField("rotate_period"):
            faults["rotate_period"] = _ONLY_PUBLISHABLE

    grantable = grantable_scopes(kind, of_store=bool(request.store_uid))
    if grantable is None:
        faults["store_uid"] = (
            f"must be empty for {kind.name}" if request.store_uid else f"{kind.name} needs a store"
        )
        grantable = DEFAULT_SCOPES[kind]
    asked = request.scopes or DEFAULT_SCOPES[kind]
    for place, scope in enumerate(asked):
        if scope not in grantable:
            faults[f"scopes[{place}]"] = f"such a key can only have {', '.join(grantable)}"
    if faults:
        raise InvalidRequest(faults)
    return KeyOrder(
        kind=kind,
        scopes=[scope for scope in grantable if scope in asked],
        expire_time=expire_time,
        allowed_origins=hosts,
        rotate_seconds=rotate_seconds,
    )


def read_key_changes(
    request: keys_pb2.UpdateKeyRequest, key: ApiKey, *, now: datetime
) -> dict[str, Any]:
    """The columns of the key that are to change, and their values."""
    faults: dict[str, str] = {}
    changes: dict[str, Any] = {}
    if request.HasField("display_name"):
        changes["display_name"] = request.display_name
        if len(request.display_name) > _LONGEST_NAME:
            faults["display_name"] = f"must have at most {_LONGEST_NAME} characters"
    if request.HasField("expire_time"):
        changes["expire_time"] = _read_expire_time(request, faults, now=now)
    if request.HasField("allowed_origins"):
        hosts = _read_hosts(request.allowed_origins.hosts, faults, field="allowed_origins.hosts")
        changes["allowed_origins"] = " ".join(hosts)
        if key.kind is not Kind.PUBLISHABLE:
            faults["allowed_origins"] = _ONLY_PUBLISHABLE
    if request.HasField("rotate_period"):
        seconds = _read_period(request, faults) if request.rotate_period != Duration() else None
        changes["rotate_seconds"] = seconds
        changes["rotate_time"] = (
            key.create_time + timedelta(seconds=seconds)
            if seconds and "rotate_period" not in faults and not key.successor_uid
            else None
        )
        if key.kind is not Kind.PUBLISHABLE:
            faults["rotate_period"] = _ONLY_PUBLISHABLE
    if faults:
        raise InvalidRequest(faults)
    return changes


def read_rotation(request: keys_pb2.RotateKeyRequest, *, now: datetime) -> Rotation:
    """How the key is to be rotated."""
    faults: dict[str, str] = {}
    overlap = _OVERLAP
    if request.HasField("overlap"):
        overlap = _as_timedelta(request.overlap)
        if not timedelta() <= overlap <= _LONGEST_OVERLAP:
            faults["overlap"] = f"must be from 0 to {_LONGEST_OVERLAP.days} days"
    expire_time = _read_expire_time(request, faults, now=now)
    if faults:
        raise InvalidRequest(faults)
    return Rotation(overlap, expire_time)


def read_uses(request: keys_pb2.ReportKeyUseRequest) -> list[Use]:
    """The uses, one for each key."""
    faults: dict[str, str] = {}
    if len(request.uses) > MOST_USES:
        faults["uses"] = f"may be {MOST_USES}"
    uses: dict[str, Use] = {}
    for number, use in enumerate(request.uses[:MOST_USES]):
        path = f"uses[{number}]"
        if not is_uid("key", use.key_uid):
            faults[f"{path}.key_uid"] = "is not the uid of a key"
        if len(use.origin) > _LONGEST_ORIGIN:
            faults[f"{path}.origin"] = f"must have at most {_LONGEST_ORIGIN} characters"
        if len(use.sdk) > _LONGEST_SDK:
            faults[f"{path}.sdk"] = f"must have at most {_LONGEST_SDK} characters"
        times = {
            field: _read_time(use, field, faults, path=f"{path}.{field}")
            for field in ("use_time", "expose_time")
        }
        if not any(times.values()):
            faults.setdefault(f"{path}.use_time", "is missing")
        uses[use.key_uid] = Use(
            key_uid=use.key_uid,
            use_time=times["use_time"],
            origin=use.origin,
            sdk=use.sdk,
            expose_time=times["expose_time"],
        )
    if faults:
        raise InvalidRequest(faults)
    return list(uses.values())


def _read_expire_time(
    request: Message, faults: dict[str, str], *, now: datetime
) -> datetime | None:
    time = _read_time(request, "expire_time", faults, path="expire_time")
    if time is not None and time <= now:
        faults["expire_time"] = "must lie in the future"
    return time


def _read_time(
    message: Message, field: str, faults: dict[str, str], *, path: str
) -> datetime | None:
    if not message.HasField(field):
        return None
    given: Timestamp = getattr(message, field)
    try:
        return given.ToDatetime(tzinfo=UTC)
    except ValueError:
        faults[path] = "is not a time"
        return None


def _read_hosts(
    hosts: Sequence[str], faults: dict[str, str], *, field: str = "allowed_origins"
) -> Sequence[str]:
    read = read_hosts(hosts)
    if read is None:
        faults[field] = (
            f"must be at most {MOST_HOSTS} hosts such as shop.example, or *.shop.example"
            " for all that end in .shop.example"
        )
    return read or ()


def _read_period(
    request: keys_pb2.CreateKeyRequest | keys_pb2.UpdateKeyRequest, faults: dict[str, str]
) -> int:
    period = _as_timedelta(request.rotate_period)
    if not _SHORTEST_PERIOD <= period <= _LONGEST_PERIOD:
        faults["rotate_period"] = (
            f"must be from {_SHORTEST_PERIOD.days} to {_LONGEST_PERIOD.days} days"
        )
    return int(period.total_seconds())


def _as_timedelta(duration: Duration) -> timedelta:
    """The duration; one that Python can't hold comes out as more than anything allowed."""
    try:
        return duration.ToTimedelta()
    except (ValueError, OverflowError):
        return timedelta.max
