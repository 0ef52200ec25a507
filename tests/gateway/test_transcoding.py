"""RPCs over HTTP: requests from paths, queries and bodies; answers as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from common.errors import PageTokenNotValid, WrongStore
from gateway.transcoding import SERVICE_VARIABLE, HttpMethod, http_methods
from shoptrail.keys.v1 import api_key_pb2, keys_pb2
from shoptrail.maintenance.v1 import job_pb2, maintenance_pb2
from shoptrail.query.v1 import export_pb2, query_pb2, report_pb2
from tests.gateway.conftest import ALL_SCOPES, OTHER_STORE, SECRET_KEY, STORE, Mesh, Running

AUTHORIZED = {"Authorization": f"Bearer {SECRET_KEY}"}
NOON = Timestamp(seconds=int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()))

ROUTES = [
    (
        "POST",
        "/v1/stores",
        {"display_name": "Shop"},
        keys_pb2.CreateStoreRequest(display_name="Shop"),
    ),
    ("GET", f"/v1/stores/{STORE}", None, keys_pb2.GetStoreRequest(store_uid=STORE)),
    (
        "GET",
        "/v1/stores?show_deleted=true&page_size=7&page_token=abc",
        None,
        keys_pb2.ListStoresRequest(show_deleted=True, page_size=7, page_token="abc"),
    ),
    ("DELETE", f"/v1/stores/{STORE}", None, keys_pb2.DeleteStoreRequest(store_uid=STORE)),
    ("POST", f"/v1/stores/{STORE}:undelete", {}, keys_pb2.UndeleteStoreRequest(store_uid=STORE)),
    (
        "POST",
        f"/v1/stores/{STORE}/keys",
        {
            "kind": "SECRET",
            "display_name": "CI",
            "scopes": ["events:read", "reports:read"],
            "expire_time": "2026-03-01T13:00:00+01:00",
            "test": True,
        },
        keys_pb2.CreateKeyRequest(
            store_uid=STORE,
            kind=api_key_pb2.KEY_KIND_SECRET,
            display_name="CI",
            scopes=["events:read", "reports:read"],
            expire_time=NOON,
            test=True,
        ),
    ),
    ("GET", f"/v1/stores/{STORE}/keys", None, keys_pb2.ListKeysRequest(store_uid=STORE)),
    (
        "POST",
        f"/v1/stores/{STORE}/keys/key_1:revoke",
        None,
        keys_pb2.RevokeKeyRequest(store_uid=STORE, key_uid="key_1"),
    ),
    (
        "GET",
        f"/v1/stores/{STORE}/reports/event-counts?start_time=2026-03-01T13:00:00+01:00"
        "&interval=week&time_zone=Europe/Berlin&names=A&names=B%26C",
        None,
        query_pb2.CountEventsRequest(
            store_uid=STORE,
            start_time=NOON,
            interval=report_pb2.INTERVAL_WEEK,
            time_zone="Europe/Berlin",
            names=["A", "B&C"],
        ),
    ),
    (
        "GET",
        f"/v1/stores/{STORE}/events?end_time=2026-03-01T12:00:00Z&name=caf%C3%A9",
        None,
        query_pb2.ListEventsRequest(store_uid=STORE, end_time=NOON, name="café"),
    ),
    (
        "POST",
        "/v1/cron/ingest/purge-deleted:run",
        {"scheduled_time": "2026-03-01T12:00:00Z"},
        maintenance_pb2.RunCronRequest(job="purge-deleted", scheduled_time=NOON),
    ),
    ("GET", "/v1/cron/query/jobs", None, maintenance_pb2.ListJobsRequest()),
    (
        "GET",
        "/v1/cron/keys/runs?job=expire-keys&page_size=3",
        None,
        maintenance_pb2.ListRunsRequest(job="expire-keys", page_size=3),
    ),
]


@pytest.mark.parametrize("method", list(http_methods()), ids=lambda method: method.rpc.name)
async def test_every_route_reaches_its_rpc(
    gateway: Running, mesh: Mesh, method: HttpMethod
) -> None:
    values = dict.fromkeys(method.variables, "given")
    texts = dict(values)
    if SERVICE_VARIABLE in values:
        values[SERVICE_VARIABLE] = "query"
        del texts[SERVICE_VARIABLE]
    if "store_uid" in values:
        values["store_uid"] = texts["store_uid"] = STORE

    await gateway.http.request(
        method.verb,
        method.template.format_map(values),
        headers=AUTHORIZED,
        json={} if method.has_body else None,
    )

    owner = method.rpc.containing_service.name.lower()
    served = {**mesh.services, "privacy": mesh.privacy}
    fake = mesh.jobs["query"] if SERVICE_VARIABLE in values else served[owner]
    (name, request, call) = fake.calls[-1]
    assert name == method.rpc.name
    assert {field: getattr(request, field) for field in texts} == texts
    assert call.key is not None


@pytest.mark.parametrize(("verb", "path", "body", "expected"), ROUTES)
async def test_each_route_calls_its_rpc_on_behalf_of_the_key(
    gateway: Running, mesh: Mesh, verb: str, path: str, body: Any, expected: Message
) -> None:
    await gateway.http.request(verb, path, headers=AUTHORIZED, json=body)

    parts = path.split("/")
    fake = mesh.jobs[parts[3]] if parts[2] == "cron" else mesh.services["keys"]
    if isinstance(expected, query_pb2.CountEventsRequest | query_pb2.ListEventsRequest):
        fake = mesh.services["query"]
    name, request, call = fake.calls[-1]
    assert f"{name}Request" == expected.DESCRIPTOR.name
    assert request == expected
    assert call.identity == "gateway"
    assert call.key is not None
    assert (call.key.uid, call.key.store_uid) == ("key_2", STORE)
    assert call.key.scopes == frozenset(ALL_SCOPES)


async def test_a_key_may_come_as_basic_too(gateway: Running) -> None:
    response = await gateway.http.get("/v1/stores", auth=(SECRET_KEY, ""))

    assert (response.status_code, response.json()) == (
        200,
        {"stores": [], "next_page_token": ""},
    )


async def test_an_answer_has_all_fields_but_messages_that_are_not_set(
    gateway: Running, mesh: Mesh
) -> None:
    async def answer(request: Any) -> Message:
        key = api_key_pb2.ApiKey(uid="key_9", kind=api_key_pb2.KEY_KIND_SECRET, create_time=NOON)
        return keys_pb2.CreateKeyResponse(key=key, text="sk_test_x")

    mesh.keys.answers["CreateKey"] = answer

    response = await gateway.http.post(f"/v1/stores/{STORE}/keys", headers=AUTHORIZED, json={})

    answered = response.json()
    assert answered["text"] == "sk_test_x"
    told = {
        "uid": "key_9",
        "store_uid": "",
        "kind": "KEY_KIND_SECRET",
        "display_name": "",
        "scopes": [],
        "create_time": "2026-03-01T12:00:00Z",
    }
    assert answered["key"] | told == answered["key"]
    assert "expire_time" not in answered["key"]


async def test_events_stand_in_the_answer_as_their_senders_wrote_them(
    gateway: Running, mesh: Mesh
) -> None:
    payload = '{"event": "Caf\\u00e9", "big": 12345678901234567890.10, "a": {"b": [null]}}'

    async def answer(request: Any) -> Message:
        return query_pb2.ListEventsResponse(
            events=[report_pb2.RecordedEvent(uid="evt_1", payload=payload.encode())],
            as_of=report_pb2.AsOf(time=NOON, position=2**60),
        )

    mesh.services["query"].answers["ListEvents"] = answer

    response = await gateway.http.get(f"/v1/stores/{STORE}/events", headers=AUTHORIZED)

    assert f'"payload":{payload}' in response.text
    assert response.json()["as_of"] == {"time": "2026-03-01T12:00:00Z", "position": str(2**60)}


async def test_a_file_is_the_body_and_what_is_said_of_it_stands_in_headers(
    gateway: Running, mesh: Mesh
) -> None:
    asked: list[export_pb2.ExportEventsRequest] = []

    async def answer(request: Any) -> Message:
        asked.append(request)
        return export_pb2.ExportEventsResponse(
            content=b"PAR1\x00\xff",
            content_type="application/vnd.apache.parquet",
            next_page_token="more",
            exported_count=2,
            total_count=2**40,
        )

    mesh.services["query"].answers["ExportEvents"] = answer

    response = await gateway.http.get(
        f"/v1/stores/{STORE}/events:export?format=PARQUET", headers=AUTHORIZED
    )

    assert asked[0].format == export_pb2.EXPORT_FORMAT_PARQUET
    assert response.content == b"PAR1\x00\xff"
    assert response.headers["content-type"] == "application/vnd.apache.parquet"
    assert response.headers["next-page-token"] == "more"
    assert response.headers["exported-count"] == "2"
    assert response.headers["total-count"] == str(2**40)
    assert "content" not in response.headers


async def test_durations_and_counts_are_as_protojson_writes_them(
    gateway: Running, mesh: Mesh
) -> None:
    async def answer(request: Any) -> Message:
        job = job_pb2.Job(name="trim")
        job.period.seconds = 3600
        return maintenance_pb2.ListJobsResponse(jobs=[job])

    mesh.jobs["ingest"].answers["ListJobs"] = answer

    response = await gateway.http.get("/v1/cron/ingest/jobs", headers=AUTHORIZED)

    assert response.json()["jobs"] == [
        {"name": "trim", "description": "", "period": "3600s", "overdue": False}
    ]


def violations_in(body: dict[str, Any]) -> dict[str, str]:
    (violations,) = [
        detail["field_violations"]
        for detail in body["error"]["details"]
        if "BadRequest" in detail["@type"]
    ]
    return {violation["field"]: violation["description"] for violation in violations}


async def test_everything_wrong_in_a_query_is_named_at_once(gateway: Running, mesh: Mesh) -> None:
    response = await gateway.http.get(
        f"/v1/stores/{STORE}/reports/event-counts?start_time=yesterday&interval=YEAR&nmaes=A"
        "&time_zone=UTC&time_zone=UTC&store_uid=x",
        headers=AUTHORIZED,
    )

    assert response.status_code == 400
    assert violations_in(response.json()) == {
        "start_time": "must be a time such as 2026-01-31T12:00:00Z",
        "interval": "must be one of HOUR, DAY, WEEK",
        "nmaes": "is not a field of this request",
        "time_zone": "must be a string",
        "store_uid": "stands in the path already",
    }
    assert mesh.services["query"].calls == []


async def test_everything_wrong_in_a_body_is_named_at_once(gateway: Running, mesh: Mesh) -> None:
    response = await gateway.http.post(
        f"/v1/stores/{STORE}/keys?test=true",
        headers=AUTHORIZED,
        json={"kind": "SECERT", "scopes": "all", "expire_time": 17, "tset": True, "store_uid": "x"},
    )

    assert response.status_code == 400
    assert violations_in(response.json()) == {
        "kind": "must be one of PUBLISHABLE, SECRET, CRON",
        "scopes": "must be a list, each a string",
        "expire_time": "must be a time such as 2026-01-31T12:00:00Z",
        "tset": "is not a field of this request",
        "store_uid": "stands in the path already",
        "test": "is not a parameter: fields stand in the body",
    }
    assert mesh.keys.requests("CreateKey") == []


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'{"display_name":"\xff"}', b"[" * 99_999])
async def test_a_body_that_is_no_json_object_is_refused(gateway: Running, body: bytes) -> None:
    response = await gateway.http.post("/v1/stores", headers=AUTHORIZED, content=body)

    assert response.status_code == 400
    assert "body" in violations_in(response.json())


@pytest.mark.parametrize("size", ["many", "3000000000", "1.5", ""])
async def test_a_number_must_be_one(gateway: Running, size: str) -> None:
    response = await gateway.http.get(f"/v1/stores?page_size={size}", headers=AUTHORIZED)

    assert response.status_code == 400
    assert violations_in(response.json()) == {
        "page_size": "must be a whole number within its range"
    }


async def test_a_forged_page_token_is_the_callers_fault(gateway: Running, mesh: Mesh) -> None:
    async def refuse(request: Any) -> Message:
        raise PageTokenNotValid

    mesh.services["query"].answers["ListEvents"] = refuse

    response = await gateway.http.get(
        f"/v1/stores/{STORE}/events?page_token=forged", headers=AUTHORIZED
    )

    assert response.status_code == 400
    assert response.json()["error"]["details"][0]["reason"] == "PAGE_TOKEN_NOT_VALID"


async def test_the_services_enforce_the_rules(gateway: Running, mesh: Mesh) -> None:
    response = await gateway.http.get(f"/v1/stores/{OTHER_STORE}/events", headers=AUTHORIZED)

    assert response.status_code == 403
    assert response.json()["error"]["message"] == str(WrongStore())
    assert mesh.services["query"].calls == []


async def test_without_a_key_that_works_no_rpc_is_called(gateway: Running, mesh: Mesh) -> None:
    for headers, reason in (
        ({}, "KEY_MISSING"),
        ({"Authorization": "Bearer sk_test_unknown"}, "KEY_NOT_VALID"),
    ):
        response = await gateway.http.get("/v1/stores", headers=headers)

        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["error"]["details"][0]["reason"] == reason
    assert mesh.keys.requests("ListStores") == []


async def test_a_service_that_is_down_is_no_fault_of_the_caller(
    gateway: Running, mesh: Mesh
) -> None:
    await mesh.stop("query")

    response = await gateway.http.get(f"/v1/stores/{STORE}/events", headers=AUTHORIZED)

    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert response.json()["error"]["status"] == "UNAVAILABLE"
    assert "127.0.0.1" not in response.text


async def test_a_fault_of_a_service_is_told_without_its_text(gateway: Running, mesh: Mesh) -> None:
    async def break_down(request: Any) -> Message:
        raise ValueError("secret")

    mesh.keys.answers["ListStores"] = break_down

    response = await gateway.http.get("/v1/stores", headers=AUTHORIZED)

    assert response.status_code == 500
    assert response.json()["error"]["message"] == "Internal error."


@pytest.mark.parametrize(
    "path", ["/v1/cron/gateway/jobs", "/v1/stores/", f"/v1/stores/{STORE}:purge", "/v1//events"]
)
async def test_what_is_not_served_is_not_found(gateway: Running, path: str) -> None:
    response = await gateway.http.get(path, headers=AUTHORIZED)

    assert response.status_code == 404
    assert response.json()["error"]["details"][0]["reason"] == "ROUTE_UNKNOWN"
