"""What Segment's SDKs, and those like them, send and are answered."""

from __future__ import annotations

import asyncio
import gzip
import json
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from gateway.segment import BATCH_PATHS, EVENT_PATHS
from shoptrail.ingest.v1 import event_pb2, ingest_pb2
from tests.gateway.conftest import ALL_SCOPES, STORE, WRITE_KEY, Mesh, Running

ACCEPTED = {
    "success": True,
    "received": 1,
    "accepted": 1,
    "duplicates": 0,
    "rejected": 0,
    "suppressed": 0,
    "quota": 0,
    "results": [],
}
BASIC = {"Authorization": f"Basic {b64encode(f'{WRITE_KEY}:'.encode()).decode()}"}
VIEWED = {"type": "track", "event": "Product Viewed", "userId": "u1", "messageId": "m1"}


def body_of(*events: Any, **beside: Any) -> bytes:
    return json.dumps({"batch": list(events), **beside}).encode()


def is_sdk_readable(response: httpx.Response) -> bool:
    """Whether SDKs take the failure for what it is, and browsers let them see it."""
    body = response.json()
    return (
        body["success"] is False
        and isinstance(body["code"], str)
        and isinstance(body["message"], str)
        and body["error"] == body["message"]
        and response.headers["access-control-allow-origin"] == "*"
        and "Retry-After" in response.headers["access-control-expose-headers"]
    )


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", EVENT_PATHS)
async def test_each_event_route_names_the_type_of_its_events(
    gateway: Running, mesh: Mesh, path: str, slash: str
) -> None:
    response = await gateway.http.post(path + slash, headers=BASIC, json={"event": "Viewed"})

    assert (response.status_code, response.json()) == (200, ACCEPTED)
    (submission,) = mesh.appended
    assert submission.store_uid == STORE
    assert submission.default_type == EVENT_PATHS[path]
    assert json.loads(submission.payloads[0]) == {"event": "Viewed"}


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", BATCH_PATHS)
async def test_each_batch_route_takes_several_events(
    gateway: Running, mesh: Mesh, path: str, slash: str
) -> None:
    body = body_of(VIEWED, {**VIEWED, "messageId": "m2"}, sentAt="2026-03-01T12:00:00.123Z")

    response = await gateway.http.post(path + slash, headers=BASIC, content=body)

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {**ACCEPTED, "received": 2, "accepted": 2}
    (submission,) = mesh.appended
    assert submission.default_type == event_pb2.EVENT_TYPE_UNSPECIFIED
    sent_time = datetime(2026, 3, 1, 12, 0, 0, 123_000, tzinfo=UTC)
    assert submission.sent_time.ToDatetime(UTC) == sent_time
    assert abs(submission.receive_time.ToDatetime(UTC) - datetime.now(UTC)).total_seconds() < 60


async def test_a_sending_time_that_is_none_is_left_out(gateway: Running, mesh: Mesh) -> None:
    for sent in ("yesterday", "2026-03-01T12:00:00", 17, None, {"a": 1}):
        body = body_of(VIEWED, sentAt=sent)
        response = await gateway.http.post("/v1/batch", headers=BASIC, content=body)
        assert response.status_code == 200

    assert not any(submission.HasField("sent_time") for submission in mesh.appended)


async def test_metrics_that_an_sdk_sends_about_itself_are_dropped(
    gateway: Running, mesh: Mesh
) -> None:
    response = await gateway.http.post("/v1/m", content=b'{"series":[]}')

    assert (response.status_code, response.json()) == (200, {"success": True})
    assert mesh.appended == []


@pytest.mark.parametrize(
    "place",
    [
        {"headers": BASIC},
        {"headers": {"Authorization": f"Basic {b64encode(WRITE_KEY.encode()).decode()}"}},
        {"headers": {"Authorization": f"Bearer {WRITE_KEY}"}},
        {"headers": {"authorization": f"bearer   {WRITE_KEY}"}},
        {
            "headers": {"Authorization": "Basic Og=="},
            "content": body_of(VIEWED, writeKey=WRITE_KEY),
        },
        {"content": body_of(VIEWED, writeKey=WRITE_KEY)},
        {"content": body_of({**VIEWED, "writeKey": WRITE_KEY})},
        {"content": body_of(VIEWED, writeKey=None), "params": {"writeKey": WRITE_KEY}},
        {"headers": BASIC, "content": body_of(VIEWED, writeKey="another")},
    ],
)
async def test_the_key_is_found_wherever_sdks_put_it(
    gateway: Running, mesh: Mesh, place: dict[str, Any]
) -> None:
    response = await gateway.http.post("/v1/batch", **({"content": body_of(VIEWED)} | place))

    assert response.json() == ACCEPTED
    assert mesh.appended[0].store_uid == STORE


async def test_an_event_may_carry_its_key_itself(gateway: Running) -> None:
    response = await gateway.http.post("/v1/t", json={"event": "Viewed", "writeKey": WRITE_KEY})

    assert response.json() == ACCEPTED


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
async def test_the_content_type_is_ignored(gateway: Running, content_type: str) -> None:
    headers = {**BASIC, "Content-Type": content_type}

    response = await gateway.http.post("/v1/batch", headers=headers, content=body_of(VIEWED))

    assert response.json() == ACCEPTED


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "gzip", "Content-Type": "application/x-www-form-urlencoded"},
        {},
    ],
)
async def test_gzip_is_inflated_whether_or_not_it_is_announced(
    gateway: Running, mesh: Mesh, headers: dict[str, str]
) -> None:
    body = gzip.compress(body_of(VIEWED))

    response = await gateway.http.post("/v1/batch", headers=BASIC | headers, content=body)

    assert response.json() == ACCEPTED
    assert json.loads(mesh.appended[0].payloads[0]) == VIEWED


async def test_a_chunked_gzip_of_several_members_is_inflated(gateway: Running, mesh: Mesh) -> None:
    body = body_of(VIEWED)

    async def chunks() -> Any:
        compressed = gzip.compress(body[:20]) + gzip.compress(body[20:])
        for start in range(0, len(compressed), 7):
            yield compressed[start : start + 7]

    response = await gateway.http.post("/v1/batch", headers=BASIC, content=chunks())

    assert response.json() == ACCEPTED
    assert json.loads(mesh.appended[0].payloads[0]) == VIEWED


async def test_99_good_events_are_stored_beside_one_that_is_not(gateway: Running) -> None:
    events: list[Any] = [{**VIEWED, "messageId": f"m{number}"} for number in range(100)]
    events[17] = {"type": "track", "messageId": "m17"}

    response = await gateway.http.post("/v1/batch", headers=BASIC, content=body_of(*events))

    assert response.status_code == 200
    assert response.json() == {
        "success": True,
        "received": 100,
        "accepted": 99,
        "duplicates": 0,
        "rejected": 1,
        "suppressed": 0,
        "quota": 0,
        "results": [
            {
                "index": 17,
                "messageId": "m17",
                "verdict": "rejected",
                "code": "name_missing",
                "path": "event",
                "message": "Name the event.",
            }
        ],
    }


async def test_an_event_that_is_sent_again_is_a_duplicate(gateway: Running) -> None:
    await gateway.http.post("/v1/track", headers=BASIC, json=VIEWED)
    response = await gateway.http.post("/v1/track", headers=BASIC, json=VIEWED)

    assert response.status_code == 200
    assert response.json() == {
        **ACCEPTED,
        "accepted": 0,
        "duplicates": 1,
        "results": [{"index": 0, "messageId": "m1", "verdict": "duplicate"}],
    }


async def test_what_is_no_object_is_left_to_ingest(gateway: Running) -> None:
    body = body_of(VIEWED, 17, None, ["x"], writeKey=WRITE_KEY, context={"ip": "192.0.2.1"})

    response = await gateway.http.post("/v1/batch", content=body)

    answer = response.json()
    assert (answer["accepted"], answer["rejected"]) == (1, 3)


async def test_an_empty_batch_is_answered_without_asking_ingest(
    gateway: Running, mesh: Mesh
) -> None:
    response = await gateway.http.post("/v1/batch", headers=BASIC, content=body_of())

    assert response.json() == {**ACCEPTED, "received": 0, "accepted": 0}
    assert mesh.appended == []


async def test_events_get_the_context_beside_them_where_they_have_none(
    gateway: Running, mesh: Mesh
) -> None:
    body = body_of(
        {"event": "A"},
        {"event": "B", "context": {"ip": "192.0.2.1"}, "integrations": None},
        {"event": "C", "context": "odd", "integrations": {"X": True}},
        context={"library": {"name": "analytics-go"}, "ip": "192.0.2.9"},
        integrations={"X": False},
    )

    response = await gateway.http.post("/v1/batch", headers=BASIC, content=body)

    assert response.status_code == 200
    library = {"name": "analytics-go"}
    assert [json.loads(payload) for payload in mesh.appended[0].payloads] == [
        {
            "event": "A",
            "context": {"library": library, "ip": "192.0.2.9"},
            "integrations": {"X": False},
        },
        {
            "event": "B",
            "context": {"library": library, "ip": "192.0.2.1"},
            "integrations": {"X": False},
        },
        {"event": "C", "context": "odd", "integrations": {"X": True}},
    ]


async def test_a_context_cannot_blow_a_batch_up(gateway: Running, mesh: Mesh) -> None:
    body = body_of(*[{} for _ in range(2000)], context={"x": "y" * 100_000})

    response = await gateway.http.post("/v1/batch", headers=BASIC, content=body)

    assert response.status_code == 413
    assert is_sdk_readable(response)
    assert mesh.appended == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"17",
        b"batch=1",
        b'{"batch":{}}',
        b'{"batch":[{]}',
        b'{"events":[]}',
        b'{"batch":[],"context":NaN}',
        b'{"batch":[],"context":{"a":"caf\xe9"}}',
        b'{"batch":[{"a":"]}',
        b'{"batch":[' + b"[1," * 60_000 + b"1" + b"]" * 60_000 + b"]}",
        b"\x1f\x8bnot gzip",
        gzip.compress(body_of(VIEWED), mtime=0)[:-9],
        body_of(*[1] * 2501),
    ],
    ids=lambda body: repr(body[:20]),
)
async def test_a_body_that_cannot_be_read_is_refused_at_once(
    gateway: Running, mesh: Mesh, body: bytes
) -> None:
    response = await gateway.http.post("/v1/batch", headers=BASIC, content=body)

    assert response.status_code == 400
    assert response.json()["code"] == "invalid_request"
    assert is_sdk_readable(response)
    assert mesh.appended == []


async def test_half_an_emoji_costs_no_event(gateway: Running, mesh: Mesh) -> None:
    events = (
        rb'{"event":"cut \ud83d","a":"\ude00 cut","whole":"\ud83d\ude00","escaped":"\\ud83d"}',
        rb'{"event":"fine"}',
    )

    response = await gateway.http.post(
        "/v1/batch", headers=BASIC, content=b'{"batch":[' + b",".join(events) + b"]}"
    )

    assert response.json()["accepted"] == 2
    assert json.loads(mesh.appended[0].payloads[0]) == {
        "event": "cut \ufffd",
        "a": "\ufffd cut",
        "whole": "\U0001f600",
        "escaped": r"\ud83d",
    }


@pytest.mark.parametrize(
    "body",
    [
        b" " * (8 * 1024 * 1024 + 1),
        gzip.compress(b" " * (200 * 1024 * 1024)),
        gzip.compress(b" " * (5 * 1024 * 1024)) * 2,
    ],
    ids=["plain", "gzip", "several gzips"],
)
async def test_a_body_over_the_limit_is_refused(gateway: Running, mesh: Mesh, body: bytes) -> None:
    response = await gateway.http.post("/v1/batch", headers=BASIC, content=body)

    assert response.status_code == 413
    assert response.json()["code"] == "body_too_large"
    assert is_sdk_readable(response)
    again = await gateway.http.post("/v1/track", headers=BASIC, json=VIEWED)
    assert again.json() == ACCEPTED


async def test_a_body_at_the_limit_is_taken(gateway: Running, mesh: Mesh) -> None:
    body = body_of({**VIEWED, "properties": {"long": ""}})
    body = body[:-5] + b"x" * (8 * 1024 * 1024 - len(body)) + body[-5:]

    response = await gateway.http.post("/v1/batch", headers=BASIC, content=body)

    assert response.json() == ACCEPTED


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "key_missing"),
        ({"Authorization": "Basic Og=="}, "key_missing"),
        ({"Authorization": "Basic ?"}, "key_missing"),
        ({"Authorization": "Bearer pk_test_unknown"}, "key_not_valid"),
        ({"Authorization": "Bearer " + "k" * 9999}, "key_not_valid"),
        ({"Authorization": b"Bearer \xff"}, "key_not_valid"),
    ],
)
async def test_without_a_key_that_works_nothing_is_taken(
    gateway: Running, mesh: Mesh, headers: dict[str, str], code: str
) -> None:
    for path in ("/v1/track", "/v1/batch"):
        content = json.dumps({**VIEWED, "batch": []})
        response = await gateway.http.post(path, headers=headers, content=content)

        assert (response.status_code, response.json()["code"]) == (401, code)
        assert is_sdk_readable(response)
    assert mesh.appended == []


async def test_a_key_needs_the_scope_and_a_store(gateway: Running, mesh: Mesh) -> None:
    mesh.keys_by_text["sk_test_reader"] = mesh.keys_by_text[WRITE_KEY].__class__(
        uid="key_3", store_uid=STORE, scopes=["events:read"]
    )
    mesh.keys_by_text["sk_test_operator"] = mesh.keys_by_text[WRITE_KEY].__class__(
        uid="key_4", scopes=ALL_SCOPES
    )
    for key in ("sk_test_reader", "sk_test_operator"):
        response = await gateway.http.post(
            "/v1/track", headers={"Authorization": f"Bearer {key}"}, json=VIEWED
        )

        assert (response.status_code, response.json()["code"]) == (403, "scope_missing")
        assert is_sdk_readable(response)


async def test_while_ingest_is_down_senders_are_asked_to_come_back(
    gateway: Running, mesh: Mesh
) -> None:
    await mesh.stop("ingest")

    response = await gateway.http.post("/v1/batch", headers=BASIC, content=body_of(VIEWED))

    assert response.status_code == 503
    assert int(response.headers["retry-after"]) in range(1, 300)
    assert response.json()["code"] == "dependency_unavailable"
    assert "127.0.0.1" not in response.text
    assert is_sdk_readable(response)

    await mesh.start("ingest")
    for _ in range(100):
        response = await gateway.http.post("/v1/batch", headers=BASIC, content=body_of(VIEWED))
        if response.status_code == 200:
            break
        await asyncio.sleep(0.05)
    assert response.json() == ACCEPTED


async def test_a_fault_of_ours_is_told_without_its_text(gateway: Running, mesh: Mesh) -> None:
    async def break_down(request: Any) -> Any:
        raise ValueError("secret")

    mesh.ingest.answers["Append"] = break_down

    response = await gateway.http.post("/v1/track", headers=BASIC, json=VIEWED)

    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert "secret" not in response.text
    assert is_sdk_readable(response)


async def test_an_answer_that_lacks_verdicts_is_not_taken_for_success(
    gateway: Running, mesh: Mesh
) -> None:
    async def forget(request: Any) -> ingest_pb2.AppendResponse:
        return ingest_pb2.AppendResponse(results=[ingest_pb2.SubmissionResult()])

    mesh.ingest.answers["Append"] = forget

    response = await gateway.http.post("/v1/track", headers=BASIC, json=VIEWED)

    assert response.status_code == 500


@pytest.mark.parametrize("path", ["/pre/v1/batch", "/v2/v1/track/"])
async def test_an_sdk_at_the_wrong_path_understands_that_it_is(gateway: Running, path: str) -> None:
    response = await gateway.http.post(path, headers=BASIC, content=body_of(VIEWED))

    assert (response.status_code, response.json()["code"]) == (404, "route_unknown")
    assert is_sdk_readable(response)
