"""What every server does with a call, whoever makes it and whatever its handler raises."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status
from sqlalchemy.exc import OperationalError

from common.access import methods_of, path_of, rules_of
from common.context import Call, get_call
from common.errors import InvalidRequest, NotFound
from common.interceptors.wrap import Context
from common.uid import new_uid
from shoptrail.ingest.v1 import ingest_pb2
from shoptrail.keys.v1 import keys_pb2, keys_pb2_grpc
from shoptrail.maintenance.v1 import maintenance_pb2
from shoptrail.query.v1 import query_pb2
from tests.conftest import Connect, Serving, key_metadata

KEYS = "shoptrail.keys.v1.Keys"
STORE = new_uid("sto")


class Handler(keys_pb2_grpc.KeysServicer):
    """Does what the test wants: raises, or notes the call that it was made in."""

    def __init__(self) -> None:
        self.failure: Callable[[], Exception] | None = None
        self.seen: Call | None = None

    async def GetStore(
        self, request: keys_pb2.GetStoreRequest, context: Context
    ) -> keys_pb2.GetStoreResponse:
        self.seen = get_call()
        if self.failure:
            raise self.failure()
        return keys_pb2.GetStoreResponse()


@pytest.fixture
def handler() -> Handler:
    return Handler()  # type: ignore[abstract]  # its other RPCs are not called


@pytest.fixture
async def connect(serving: Serving, handler: Handler) -> AsyncIterator[Connect]:
    async with serving(
        [KEYS], lambda server: keys_pb2_grpc.add_KeysServicer_to_server(handler, server)
    ) as connect:
        yield connect


def keys(connect: Connect, identity: str) -> keys_pb2_grpc.KeysAsyncStub:
    return keys_pb2_grpc.KeysStub(connect(identity))


def error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    status = status_pb2.Status.FromString(
        dict(error.trailing_metadata())["grpc-status-details-bin"]
    )
    info = error_details_pb2.ErrorInfo()
    assert isinstance(status.details[0], any_pb2.Any)
    assert status.details[0].Unpack(info)
    return info


async def fail(connect: Connect, identity: str = "operator") -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await keys(connect, identity).GetStore(keys_pb2.GetStoreRequest(), timeout=5)
    return caught.value


async def test_an_identity_that_the_rule_does_not_name_is_turned_away(
    connect: Connect, handler: Handler
) -> None:
    for identity in ("ingest", "query", "cron", "stranger"):
        error = await fail(connect, identity)
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert error_info(error).reason == "CALLER_NOT_ALLOWED"
    assert handler.seen is None


async def test_a_caller_without_a_certificate_is_not_even_heard(
    connect: Connect, handler: Handler
) -> None:
    async with grpc.aio.insecure_channel(connect.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await keys_pb2_grpc.KeysStub(channel).GetStore(keys_pb2.GetStoreRequest(), timeout=2)

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert handler.seen is None


async def test_a_key_needs_the_scope_and_the_store_before_anything_is_looked_up(
    connect: Connect, handler: Handler
) -> None:
    request = keys_pb2.GetStoreRequest(store_uid=STORE)
    for metadata, reason in (
        (key_metadata("keys:read", store_uid=STORE), "SCOPE_MISSING"),
        (key_metadata(store_uid=STORE), "SCOPE_MISSING"),
        ((), "SCOPE_MISSING"),
        (key_metadata("stores:read", store_uid=new_uid("sto")), "WRONG_STORE"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await keys(connect, "gateway").GetStore(request, timeout=5, metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert error_info(caught.value).reason == reason
    assert handler.seen is None


async def test_a_key_of_a_store_must_say_which_store_it_means(connect: Connect) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await keys(connect, "gateway").GetStore(
            keys_pb2.GetStoreRequest(),
            timeout=5,
            metadata=key_metadata("stores:read", store_uid=STORE),
        )

    assert error_info(caught.value).reason == "WRONG_STORE"


async def test_the_handler_knows_who_calls_and_until_when(
    connect: Connect, handler: Handler
) -> None:
    await keys(connect, "gateway").GetStore(
        keys_pb2.GetStoreRequest(store_uid=STORE),
        timeout=5,
        metadata=(("x-request-id", "req-1"), *key_metadata("stores:read", store_uid=STORE)),
    )

    call = handler.seen
    assert call is not None
    assert (call.identity, call.request_id) == ("gateway", "req-1")
    assert call.key is not None
    assert call.key.store_uid == STORE
    assert 0 < (call.remaining_seconds() or 0) <= 5


async def test_a_call_without_a_deadline_is_refused(connect: Connect) -> None:
    for timeout in (None, 2 * 3600):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await keys(connect, "operator").GetStore(keys_pb2.GetStoreRequest(), timeout=timeout)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error_info(caught.value).reason == "DEADLINE_MISSING"


async def test_a_failure_of_ours_has_its_reason_and_its_details(
    connect: Connect, handler: Handler
) -> None:
    handler.failure = lambda: NotFound("There is no such store.", {"uid": STORE})
    error = await fail(connect)
    assert (error.code(), error.details()) == (
        grpc.StatusCode.NOT_FOUND,
        "There is no such store.",
    )
    assert (error_info(error).reason, error_info(error).metadata["uid"]) == ("NOT_FOUND", STORE)

    handler.failure = lambda: InvalidRequest({"a.b": "is bad", "c[0]": "is worse"})
    error = await fail(connect)
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # has what is read of it
    bad_request = error_details_pb2.BadRequest()
    assert status is not None
    assert status.details[1].Unpack(bad_request)
    assert [violation.field for violation in bad_request.field_violations] == ["a.b", "c[0]"]


async def test_what_an_exception_says_reaches_neither_the_caller_nor_the_log(
    connect: Connect, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    def chained() -> Exception:
        failure = RuntimeError("planted secret")
        failure.__cause__ = ValueError("another planted secret")
        return failure

    handler.failure = chained
    with caplog.at_level(logging.DEBUG):
        error = await fail(connect)

    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "Internal error.")
    assert "planted" not in repr(error.trailing_metadata())
    (record,) = (record for record in caplog.records if record.message == "call failed")
    assert "planted" not in json.dumps(vars(record), default=repr)
    assert "RuntimeError" in vars(record)["error"]
    assert "ValueError" in vars(record)["error"]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (1213, grpc.StatusCode.ABORTED),
        (1205, grpc.StatusCode.ABORTED),
        (2013, grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_a_database_that_gives_up_tells_whether_to_repeat(
    connect: Connect,
    handler: Handler,
    number: int,
    code: grpc.StatusCode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler.failure = lambda: OperationalError("SELECT planted", {}, Exception(number, "planted"))

    error = await fail(connect)

    assert error.code() is code
    assert "planted" not in str(error.details())
    records = [record for record in caplog.records if record.message == "call failed"]
    assert {record.levelname for record in records} == {"WARNING"}
    # An outage would fill the disk with them.
    assert not any("stack" in vars(record) for record in records)


def test_every_rpc_has_a_rule() -> None:
    services = [
        module.DESCRIPTOR.services_by_name[name].full_name
        for module, name in (
            (ingest_pb2, "Ingest"),
            (query_pb2, "Query"),
            (keys_pb2, "Keys"),
            (maintenance_pb2, "Maintenance"),
        )
    ]

    rules = rules_of(services)

    assert set(rules) == {path_of(method) for service in services for method in methods_of(service)}


def test_a_server_with_an_rpc_that_has_no_rule_does_not_start() -> None:
    name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

    with pytest.raises(ValueError, match=r"no access rule for /grpc\.health\.v1\.Health/Check"):
        rules_of([name])


@pytest.mark.parametrize("wire", [b"\x0a\xff", b"\xff" * 9, b"\x0a\x02\xc3\x28"])
async def test_bytes_that_are_no_message_are_refused_and_nothing_of_them_is_told(
    connect: Connect, handler: Handler, wire: bytes
) -> None:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = connect("operator").unary_unary(
        f"/{KEYS}/GetStore"
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(wire, timeout=5)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == (
        "The request is not valid. request: is no message of this method"
    )
    assert handler.seen is None
