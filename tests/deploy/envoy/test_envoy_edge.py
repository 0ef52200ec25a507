"""What the world sees: an edge before a gateway, with real Envoys between all of them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import code_pb2

from common.errors import MeshError
from deploy.envoy.settings import EDGE_PORT, REDIRECT_PORT
from gateway.errors import http_status
from shoptrail.errors.v1.error_reason_pb2 import ErrorReason
from tests.deploy.envoy.conftest import RATE_PER_SECOND, Street
from tests.deploy.envoy.pods import eventually
from tests.gateway.conftest import SECRET_KEY, STORE, WRITE_KEY

EVENT = {"event": "Product Viewed", "anonymousId": "a", "messageId": "m-1"}
RECEIPTS = f"/v1/stores/{STORE}/receipts?message_ids=a"
EXPECTED = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_an_event_goes_from_the_edge_to_ingest_and_its_verdict_back(street: Street) -> None:
    answer = await street.http.post("/v1/track", json=EVENT, headers=bearer(WRITE_KEY))

    assert answer.status_code == 200
    assert answer.json()["accepted"] == 1
    ((_, request, call),) = [c for c in street.mesh.ingest.calls if c[0] == "Append"]
    assert call.identity == "gateway"
    assert request.submissions[0].payloads


async def test_who_sent_an_event_is_told_through_both_proxies(street: Street) -> None:
    async with street.client(
        headers={**bearer(WRITE_KEY), "X-Forwarded-For": "198.51.100.7", "X-Request-Id": "mine-1"}
    ) as client:
        answer = await client.post("/v1/track", json=EVENT)

    (request,) = street.mesh.ingest.requests("Append")
    # The peer's, and not what it says: nobody before this edge is believed.
    assert request.submissions[0].client_ip == "127.0.0.1"
    assert answer.headers["x-request-id"] == "mine-1"


@pytest.mark.parametrize("name", EXPECTED)
async def test_each_grpc_code_has_its_http_status_and_its_body(street: Street, name: str) -> None:
    class Failure(MeshError):
        code = grpc.StatusCode[name]
        reason = ErrorReason.ERROR_REASON_INVALID_REQUEST

    async def fail(request: Any) -> Any:
        raise Failure("It went wrong, and this says how.", {"field": "value"})

    street.mesh.ingest.answers["GetReceipts"] = fail

    answer = await street.http.get(RECEIPTS, headers=bearer(SECRET_KEY))

    assert answer.status_code == EXPECTED[name]
    assert http_status(Failure("").to_proto()) == EXPECTED[name]
    error = answer.json()["error"]
    assert error["code"] == EXPECTED[name]
    assert error["status"] == name
    assert error["message"] == "It went wrong, and this says how."
    assert error["details"][0]["metadata"] == {"field": "value"}
    assert code_pb2.Code.Value(name) == grpc.StatusCode[name].value[0]


async def test_every_answer_has_the_headers_that_protect_and_none_that_tell(
    street: Street,
) -> None:
    for answer in (
        await street.http.get("/openapi.json"),
        await street.http.get("/metrics"),  # Says the edge by itself.
        await street.http.post("/v1/track", json=EVENT),  # Says the gateway: no key.
    ):
        assert answer.headers["strict-transport-security"].startswith("max-age=31536000")
        assert answer.headers["x-content-type-options"] == "nosniff"
        told = {"server", "x-envoy-upstream-service-time", "x-powered-by"} & set(answer.headers)
        assert not told


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "//metrics", "/v1/../metrics"])
async def test_what_is_for_operators_is_not_served_to_the_world(street: Street, path: str) -> None:
    status, body = await raw(
        street, f"GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n"
    )

    assert status == 404
    assert b'"code":"not_found"' in body


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("GET /%2fmetrics HTTP/1.1\r\nHost: a\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1.2.3.4\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nA: " + "a" * 70_000 + "\r\n", 431),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            400,
        ),
        ("GET / HTTP/1.1\r\n", 400),
    ],
    ids=["escaped slash", "underscore", "large head", "two lengths", "smuggling", "no host"],
)
async def test_a_hostile_head_ends_at_the_edge(street: Street, head: str, expected: int) -> None:
    status, _ = await raw(street, f"{head}Connection: close\r\n\r\n")

    assert status == expected
    assert (await street.http.get("/openapi.json")).status_code == 200


async def test_the_edge_speaks_tls_1_3_only_and_http_2(street: Street) -> None:
    context = ssl.create_default_context(cafile=str(street.edge.tls / "ca.crt"))
    context.check_hostname = False
    context.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.open_connection(street.edge.address, EDGE_PORT, ssl=context)
    connection = writer.get_extra_info("ssl_object")
    assert (connection.version(), connection.selected_alpn_protocol()) == ("TLSv1.3", "h2")
    writer.close()

    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        await asyncio.open_connection(street.edge.address, EDGE_PORT, ssl=context)


async def test_plain_http_is_sent_to_https_unless_it_has_told_its_key(street: Street) -> None:
    url = f"http://{street.edge.address}:{REDIRECT_PORT}/v1/track"
    async with httpx.AsyncClient() as client:
        read = await client.get(url, headers={"Host": "shop.example"})
        told = await client.post(url, json=EVENT, headers=bearer(WRITE_KEY))

    assert (read.status_code, read.headers["location"]) == (301, "https://shop.example/v1/track")
    assert told.status_code == 426


async def test_an_address_that_floods_is_held_to_its_rate_and_others_are_not(
    street: Street,
) -> None:
    began = asyncio.get_running_loop().time()
    conversations = await asyncio.gather(
        *(repeat(street, RATE_PER_SECOND, sender="127.0.0.8") for _ in range(4))
    )
    seconds = asyncio.get_running_loop().time() - began
    (other,) = await repeat(street, 1, sender="127.0.0.9")

    answers = [answer for answers in conversations for answer in answers]
    refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 429 ")]
    allowed = len(answers) - len(refused)
    assert RATE_PER_SECOND * 0.9 <= allowed <= RATE_PER_SECOND * (1.1 + seconds)
    assert refused
    assert b"retry-after: 1\r\n" in refused[0]
    # A page must be able to read what its SDK was told.
    assert b"access-control-allow-origin: *\r\n" in refused[0]
    assert b'"code":"too_many_requests"' in refused[0]
    assert other.startswith(b"HTTP/1.1 404 ")


async def test_the_log_of_the_edge_tells_requests_by_their_names_and_no_keys(
    street: Street,
) -> None:
    await street.http.get(f"/v1/projects/{WRITE_KEY}/settings", headers={"X-Request-Id": "log-1"})
    await street.http.get(f"/v1/pixel/track?writeKey={WRITE_KEY}&event=Opened")
    await street.http.post("/v1/track", json=EVENT, headers=bearer(WRITE_KEY))

    async def written() -> bool:
        return '"log-1"' in street.pods.log_of(street.edge)

    await eventually(written)
    assert WRITE_KEY not in street.pods.log_of(street.edge)
    assert WRITE_KEY not in street.pods.log_of(street.gateway)


async def raw(street: Street, request: str) -> tuple[int, bytes]:
    """The status and body that bytes get for an answer which no client would send."""
    async with connected(street, sender="127.0.0.1") as (reader, writer):
        writer.write(request.encode())
        answer = await asyncio.wait_for(reader.read(), 20)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head, "no answer"
    return int(head.split()[1]), body


async def repeat(street: Street, count: int, *, sender: str) -> list[bytes]:
    """Answers to requests that the edge answers by itself, one after the other."""
    answers = []
    async with connected(street, sender=sender) as (reader, writer):
        for _ in range(count):
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).lower().replace(b"http/", b"HTTP/")
            length = int(head.partition(b"content-length: ")[2].split()[0])
            answers.append(head + await reader.readexactly(length))
    return answers


@asynccontextmanager
async def connected(
    street: Street, *, sender: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the edge from an address of this machine."""
    context = ssl.create_default_context(cafile=str(street.edge.tls / "ca.crt"))
    context.check_hostname = False
    reader, writer = await asyncio.open_connection(
        street.edge.address, EDGE_PORT, ssl=context, local_addr=(sender, 0)
    )
    try:
        yield reader, writer
    finally:
        writer.close()
