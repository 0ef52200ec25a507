"""Failures over HTTP: which status they have, and how they look as JSON (AIP-193)."""

from __future__ import annotations

import http
import math

import grpc
import msgspec
from google.protobuf import json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from common.errors import DOMAIN, DependencyUnavailable, InternalError, MeshError
from gateway.exchange import Headers, Response

RETRY_AFTER_SECONDS = 2

# As `google.rpc.Code` has it.
_HTTP_STATUS = {
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.FAILED_PRECONDITION: 400,
    code_pb2.OUT_OF_RANGE: 400,
    code_pb2.UNAUTHENTICATED: 401,
    code_pb2.PERMISSION_DENIED: 403,
    code_pb2.NOT_FOUND: 404,
    code_pb2.ABORTED: 409,
    code_pb2.ALREADY_EXISTS: 409,
    code_pb2.RESOURCE_EXHAUSTED: 429,
    code_pb2.CANCELLED: 499,
    code_pb2.UNIMPLEMENTED: 501,
    code_pb2.UNAVAILABLE: 503,
    code_pb2.DEADLINE_EXCEEDED: 504,
}
# HTTP has a closer word for these than for their codes. OVERLOADED is the server's
# plight and not the caller's quota: SDKs that never repeat after 429 do after 503.
_HTTP_STATUS_OF_REASON = {"BODY_TOO_LARGE": 413, "OVERLOADED": 503}


def to_failure(error: Exception) -> status_pb2.Status:
    """What the caller may know of an error: of one that nobody foresaw, nothing."""
    if isinstance(error, MeshError):
        return error.to_proto()
    if isinstance(error, grpc.aio.AioRpcError):
        return _failure_of_call(error)
    return InternalError().to_proto()


def reason_of(failure: status_pb2.Status) -> str:
    """The failure's `ErrorInfo.reason`; empty if it has none."""
    info = error_details_pb2.ErrorInfo()
    for detail in failure.details:
        if detail.Unpack(info) and info.domain == DOMAIN:
            return str(info.reason)
    return ""


def http_status(failure: status_pb2.Status) -> int:
    """The HTTP status of a failure."""
    return _HTTP_STATUS_OF_REASON.get(reason_of(failure)) or _HTTP_STATUS.get(failure.code, 500)


def headers_of(failure: status_pb2.Status) -> Headers:
    """The headers that belong to a failure: when to try again, or how to say who calls."""
    status = http_status(failure)
    if status in (429, 503):
        return ((b"retry-after", b"%d" % _retry_seconds_of(failure)),)
    if status == http.HTTPStatus.UNAUTHORIZED:
        return ((b"www-authenticate", b"Bearer"),)
    return ()


def _retry_seconds_of(failure: status_pb2.Status) -> int:
    """How long to wait, in whole seconds: some SDKs read nothing else."""
    info = error_details_pb2.RetryInfo()
    for detail in failure.details:
        if detail.Unpack(info):
            seconds: float = info.retry_delay.ToNanoseconds() / 1e9
            return max(1, math.ceil(seconds))
    return RETRY_AFTER_SECONDS


def error_response(failure: status_pb2.Status) -> Response:
    """A failure as AIP-193 writes it in JSON, with fields named as in the protos."""
    status = http_status(failure)
    error = {
        "code": status,
        "message": failure.message,
        "status": code_pb2.Code.Name(failure.code),
        "details": [
            json_format.MessageToDict(detail, preserving_proto_field_name=True)
            for detail in failure.details
            if detail.TypeName().startswith("google.rpc.")
        ],
    }
    return Response(status, msgspec.json.encode({"error": error}), headers=headers_of(failure))


def _failure_of_call(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    # It has what `from_call` reads, though not the type of a call.
    failure: status_pb2.Status | None = rpc_status.from_call(error)  # type: ignore[arg-type]
    if failure is not None and reason_of(failure):
        return failure
    # Not said by a handler of ours but by gRPC, whose texts name addresses.
    if error.code() in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,  # It was just stopping.
    ):
        return DependencyUnavailable().to_proto()
    return InternalError().to_proto()
