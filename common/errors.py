"""Failures a caller can act on, and how they look on the wire (AIP-193)."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from shoptrail.errors.v1.error_reason_pb2 import ErrorReason

DOMAIN = "shoptrail"


class MeshError(Exception):
    """A failure whose message and metadata are fit for the caller to read."""

    code: grpc.StatusCode
    reason: ErrorReason.ValueType

    def __init__(self, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.metadata = dict(metadata or {})

    def details(self) -> list[any_pb2.Any]:
        """The `google.rpc` details, of which `ErrorInfo` always comes first."""
        info = error_details_pb2.ErrorInfo(
            reason=ErrorReason.Name(self.reason).removeprefix("ERROR_REASON_"),
            domain=DOMAIN,
            metadata=self.metadata,
        )
        return [_pack(info)]

    def to_proto(self) -> status_pb2.Status:
        """This failure as `google.rpc.Status`."""
        return status_pb2.Status(code=self.code.value[0], message=str(self), details=self.details())

    def to_status(self) -> grpc.Status:
        """This failure as the status that ends an RPC."""
        return rpc_status.to_status(self.to_proto())


class InvalidRequest(MeshError):
    """The request can't be served as it is; its fields say why, all at once."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = ErrorReason.ERROR_REASON_INVALID_REQUEST

    def __init__(self, violations: Mapping[str, str]) -> None:
        listed = "; ".join(f"{field}: {why}" for field, why in violations.items())
        super().__init__(f"The request is not valid. {listed}")
        self.violations = dict(violations)

    def details(self) -> list[any_pb2.Any]:
        bad_request = error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field=field, description=why)
                for field, why in self.violations.items()
            ]
        )
        return [*super().details(), _pack(bad_request)]


class PageTokenNotValid(MeshError):
    """The page token is of another call or was altered."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = ErrorReason.ERROR_REASON_PAGE_TOKEN_NOT_VALID

    def __init__(self) -> None:
        super().__init__("The page token is not of this call. Start again without one.")


class DeadlineMissing(MeshError):
    """The call has no deadline, or one that is too far away."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = ErrorReason.ERROR_REASON_DEADLINE_MISSING

    def __init__(self) -> None:
        super().__init__("Calls need a deadline of at most an hour.")


class BodyTooLarge(MeshError):
    """The body is larger than the gateway accepts."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = ErrorReason.ERROR_REASON_BODY_TOO_LARGE

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"The body is larger than {limit_bytes} bytes, decoded. Send fewer events at a time.",
            {"limit_bytes": str(limit_bytes)},
        )


class KeyMissing(MeshError):
    """No API key came with the request."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = ErrorReason.ERROR_REASON_KEY_MISSING

    def __init__(self) -> None:
        super().__init__("The request carries no key. Send `Authorization: Bearer <key>`.")


class KeyNotValid(MeshError):
    """The key doesn't work; why is not told."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = ErrorReason.ERROR_REASON_KEY_NOT_VALID

    def __init__(self) -> None:
        super().__init__("The key is not valid.")


class ScopeMissing(MeshError):
    """The key lacks a scope."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = ErrorReason.ERROR_REASON_SCOPE_MISSING

    def __init__(self, scope: str) -> None:
        super().__init__(f"The key lacks the scope {scope}.", {"scope": scope})


class WrongStore(MeshError):
    """The key belongs to another store."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = ErrorReason.ERROR_REASON_WRONG_STORE

    def __init__(self) -> None:
        super().__init__("The key does not open this store.")


class OriginNotAllowed(MeshError):
    """The key is bound to other origins than the request's."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = ErrorReason.ERROR_REASON_ORIGIN_NOT_ALLOWED

    def __init__(self) -> None:
        super().__init__("The key may not be used from this origin.")


class SecretKeyExposed(MeshError):
    """A key that must stay secret came from a browser."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = ErrorReason.ERROR_REASON_SECRET_KEY_EXPOSED

    def __init__(self) -> None:
        super().__init__(
            "This key must stay secret, and a browser sent it. Rotate it, and use a publishable"
            " key in pages."
        )


class CallerNotAllowed(MeshError):
    """The RPC's access rule does not list the caller."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = ErrorReason.ERROR_REASON_CALLER_NOT_ALLOWED

    def __init__(self) -> None:
        super().__init__("This identity may not call this method.")


class NotFound(MeshError):
    """There is no such thing, or none that the caller may know of."""

    code = grpc.StatusCode.NOT_FOUND
    reason = ErrorReason.ERROR_REASON_NOT_FOUND


class WrongState(MeshError):
    """The resource is not in a state that allows this."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = ErrorReason.ERROR_REASON_WRONG_STATE


class Conflict(MeshError):
    """The database gave up on this transaction; the same call may succeed now."""

    code = grpc.StatusCode.ABORTED
    reason = ErrorReason.ERROR_REASON_CONFLICT

    def __init__(self) -> None:
        super().__init__("Another transaction was in the way. Try again.")


class DependencyUnavailable(MeshError):
    """A database, Redis or another service is not reachable."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = ErrorReason.ERROR_REASON_DEPENDENCY_UNAVAILABLE

    def __init__(self) -> None:
        super().__init__("Temporarily unavailable. Try again in a moment.")


class Overloaded(MeshError):
    """More requests wait than this process can hold."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = ErrorReason.ERROR_REASON_OVERLOADED

    def __init__(self) -> None:
        super().__init__("Too many requests are waiting. Try again in a moment.")


class RateLimited(MeshError):
    """The key sends more events than it may."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = ErrorReason.ERROR_REASON_RATE_LIMITED

    def __init__(self, *, events_per_second: float, retry_seconds: float) -> None:
        super().__init__(
            f"The key may send {events_per_second:g} events a second. Try again later.",
            {"events_per_second": f"{events_per_second:g}"},
        )
        self.retry_seconds = retry_seconds

    def details(self) -> list[any_pb2.Any]:
        wait = error_details_pb2.RetryInfo()
        wait.retry_delay.FromNanoseconds(int(self.retry_seconds * 1e9))
        return [*super().details(), _pack(wait)]


class RouteUnknown(MeshError):
    """The path isn't served, or not by this method."""

    code = grpc.StatusCode.NOT_FOUND
    reason = ErrorReason.ERROR_REASON_ROUTE_UNKNOWN

    def __init__(self) -> None:
        super().__init__("Nothing is served here. /openapi.json lists what is.")


class InternalError(MeshError):
    """The fault is ours; what it was is in the log."""

    code = grpc.StatusCode.INTERNAL
    reason = ErrorReason.ERROR_REASON_INTERNAL

    def __init__(self) -> None:
        super().__init__("Internal error.")


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
