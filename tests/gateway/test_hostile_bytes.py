"""What no SDK sends: two lengths, endless heads, bodies that drip."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from gateway.http_server import serve_http
from tests.gateway.conftest import WRITE_KEY, Doorway, Mesh, Running

EVENT = b'{"event":"Viewed","writeKey":"%b"}' % WRITE_KEY.encode()
POST = b"POST /v1/track HTTP/1.1\r\nHost: x\r\n"
WHOLE = POST + b"Content-Length: %d\r\n\r\n" % len(EVENT) + EVENT
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(EVENT), EVENT)


async def exchange(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send the parts one after another; everything that comes back until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writing = asyncio.create_task(_write(writer, parts, pause))
    answer = b""
    with suppress(ConnectionError):  # What is refused half-way may be reset.
        async with asyncio.timeout(10):
            while received := await reader.read(65536):
                answer += received
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return answer


async def _write(writer: asyncio.StreamWriter, parts: tuple[bytes, ...], pause: float) -> None:
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(pause)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def count_answers(answer: bytes) -> int:
    return answer.count(b"HTTP/1.1 ")


@pytest.mark.parametrize(
    "request_bytes",
    [
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + EVENT,
        POST + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" + CHUNKED,
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKED,
        POST + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKED,
        POST + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKED,
        POST + b"Content-Length: -1\r\n\r\n" + EVENT,
        POST + b"Content-Length: 1e1\r\n\r\n" + EVENT,
        POST + b"Content-Length: 99999999999999999999999\r\n\r\n" + EVENT,
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + EVENT,
        POST + b"X: a\r\n b\r\n\r\n" + EVENT,
        POST + b"X: a\x00b\r\n\r\n" + EVENT,
        POST + b"\xff: a\r\n\r\n",
        b"POST /v1/track HTTP/9.9\r\n\r\n",
        b"G\x00T / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 80,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=lambda sent: repr(sent.removeprefix(POST)[:48]),
)
async def test_what_two_readers_could_read_differently_is_refused_and_the_connection_closed(
    gateway: Running, mesh: Mesh, request_bytes: bytes
) -> None:
    answer = await exchange(gateway.port, request_bytes + WHOLE)

    assert status_of(answer) == 400
    assert count_answers(answer) == 1
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    told = json.loads(body)
    assert (told["success"], told["code"]) == (False, "bad_request")
    assert told["error"] == told["message"]
    assert mesh.appended == []


async def test_requests_that_follow_at_once_are_answered_in_order(gateway: Running) -> None:
    last = b"POST /v1/nowhere HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

    answer = await exchange(gateway.port, WHOLE * 3 + last)

    assert count_answers(answer) == 4
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200"] * 3 + [b"404"]


@pytest.mark.parametrize("pieces", [1, 50])
async def test_a_head_over_64_kib_is_refused(gateway: Running, mesh: Mesh, pieces: int) -> None:
    lines = b"".join(b"X-%d: %b\r\n" % (number, b"y" * 1000) for number in range(100))
    sent = POST + lines + b"Content-Length: %d\r\n\r\n" % len(EVENT) + EVENT
    size = len(sent) // pieces + 1

    answer = await exchange(
        gateway.port, *(sent[start : start + size] for start in range(0, len(sent), size))
    )

    assert status_of(answer) == 431
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == (
        "request_header_fields_too_large"
    )
    assert mesh.appended == []


async def test_a_head_below_64_kib_is_taken_with_a_body_above_it(
    gateway: Running, mesh: Mesh
) -> None:
    body = EVENT[:-1] + b',"filler":"%b"}' % (b"z" * 100_000)
    head = POST + b"Connection: close\r\nX: %b\r\n" % (b"y" * 60_000)

    answer = await exchange(gateway.port, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    assert status_of(answer) == 200
    assert len(mesh.appended) == 1


@pytest.fixture
async def hasty_port(gateway: Running, doorway: tuple[Doorway, int]) -> AsyncIterator[int]:
    """The gateway behind a server that waits for a head for 0.3 s only, and hardly for bodies."""
    door, _ = doorway
    async with serve_http(
        door, "127.0.0.1:0", grace_seconds=1.0, head_seconds=0.3, body_seconds=0.2
    ) as port:
        yield port


@pytest.mark.parametrize("begun", [b"", b"\r\n", POST, POST + b"X: "])
async def test_a_head_that_does_not_end_is_given_up(hasty_port: int, begun: bytes) -> None:
    answer = await exchange(hasty_port, begun)

    assert status_of(answer) == 408


async def test_a_head_that_drips_is_given_up(hasty_port: int, mesh: Mesh) -> None:
    answer = await exchange(hasty_port, POST, *[b"X: y\r\n"] * 20, b"\r\n", pause=0.05)

    assert status_of(answer) == 408
    assert mesh.appended == []


async def test_an_idle_connection_that_drips_line_ends_is_given_up(hasty_port: int) -> None:
    answer = await exchange(hasty_port, WHOLE, *[b"\r\n"] * 20, pause=0.05)

    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"408"]


async def test_a_body_that_drips_is_told_to_come_again(hasty_port: int, mesh: Mesh) -> None:
    head = POST + b"Connection: close\r\nContent-Length: 1000\r\n\r\n"

    answer = await exchange(hasty_port, head, *[b"x"] * 10, pause=0.05)

    assert status_of(answer) == 503
    assert b"retry-after: " in answer
    assert mesh.appended == []


async def test_slow_connections_keep_no_other_waiting(gateway: Running) -> None:
    idle = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(200)]
    for _, writer in idle:
        writer.write(POST)

    response = await gateway.http.post("/v1/track", content=EVENT)

    assert response.json()["accepted"] == 1
    for _, writer in idle:
        writer.close()


async def test_what_comes_after_a_last_request_is_no_request(gateway: Running, mesh: Mesh) -> None:
    last = WHOLE.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n")

    answer = await exchange(gateway.port, last + WHOLE)

    assert count_answers(answer) == 1
    assert len(mesh.appended) == 1


async def test_what_is_no_request_is_refused_after_the_answers_to_those_before_it(
    gateway: Running, mesh: Mesh
) -> None:
    answer = await exchange(gateway.port, WHOLE * 2 + b"what?\r\n\r\n" + WHOLE)

    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"400"]
    assert len(mesh.appended) == 2


async def test_more_requests_at_once_than_may_wait_are_all_answered(gateway: Running) -> None:
    last = b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n"

    answer = await exchange(gateway.port, WHOLE * 100 + last)

    assert count_answers(answer) == 101
    assert answer.count(b" 200 ") == 101


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/healthz?a=b#c", 200),
        (b"http://shop.example/healthz", 200),
        (b"/he%61lthz", 200),
        (b"/%ff", 404),
        (b"*", 404),
        (b"healthz", 400),
        ("/ä".encode(), 400),
    ],
)
async def test_targets_in_every_form(gateway: Running, target: bytes, status: int) -> None:
    answer = await exchange(gateway.port, b"GET %b HTTP/1.1\r\nConnection: close\r\n\r\n" % target)

    assert status_of(answer) == status


async def test_http_1_0_is_answered_and_the_connection_closed(gateway: Running) -> None:
    answer = await exchange(
        gateway.port, b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2
    )

    assert count_answers(answer) == 1
    assert b"connection: close" in answer


async def test_an_upgrade_is_answered_as_if_it_was_not_asked_for(gateway: Running) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"

    answer = await exchange(
        gateway.port, b"GET /healthz HTTP/1.1\r\n" + upgrade + b"PRI * HTTP/2.0\r\n\r\n"
    )

    assert status_of(answer) == 200
    assert count_answers(answer) == 1


async def test_a_sender_that_waits_to_be_told_to_go_on_is_told(gateway: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(EVENT)
    writer.write(POST + head)
    told = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.write(EVENT)

    assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert status_of(await reader.read()) == 200
    writer.close()


async def test_a_head_request_is_answered_without_the_body(gateway: Running) -> None:
    answer = await exchange(gateway.port, b"HEAD /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")

    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-length: 14" in head
    assert body == b""
