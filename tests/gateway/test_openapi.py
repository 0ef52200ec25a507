"""The description of the HTTP side, which is made from the protos."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.pixel import PIXEL_PATHS
from gateway.segment import BATCH_PATHS, EVENT_PATHS
from gateway.transcoding import http_methods
from tests.gateway.conftest import Running


def references_in(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for inner in part.values():
            yield from references_in(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references_in(inner)


async def test_every_route_is_described(gateway: Running) -> None:
    described = (await gateway.http.get("/openapi.json")).json()

    assert described["openapi"] == "3.1.0"
    routes = {(verb.upper(), path) for path, item in described["paths"].items() for verb in item}
    expected = {(method.verb, method.template) for method in http_methods()}
    expected |= {("POST", path) for path in (*EVENT_PATHS, *BATCH_PATHS, "/v1/m")}
    expected |= {("GET", path) for path in ("/healthz", "/readyz", "/metrics", "/openapi.json")}
    expected |= {("GET", path) for path in (*PIXEL_PATHS, "/.well-known/gpc.json", "/sourceConfig")}
    expected.add(("GET", "/v1/projects/{write_key}/settings"))
    expected.add(("GET", "/v1/stores/{store_uid}/events:live"))
    expected |= {("GET", "/v1/session"), ("POST", "/v1/session")}
    expected |= {("POST", "/v1/session:end"), ("POST", "/v1/session:end-all")}
    assert routes == expected


async def test_the_description_is_whole(gateway: Running) -> None:
    described = (await gateway.http.get("/openapi.json")).json()

    schemas = described["components"]["schemas"]
    for reference in references_in(described):
        assert reference.removeprefix("#/components/schemas/") in schemas
    operations = [
        (path, operation)
        for path, item in described["paths"].items()
        for operation in item.values()
    ]
    ids = [operation["operationId"] for _, operation in operations]
    assert len(set(ids)) == len(ids)
    for path, operation in operations:
        assert operation["summary"]
        assert operation["responses"]
        in_path = {
            parameter["name"]
            for parameter in operation.get("parameters", [])
            if parameter["in"] == "path" and parameter["required"]
        }
        assert in_path == {part.split("}")[0] for part in path.split("{")[1:]}
    for schema in schemas.values():
        assert schema["description"]


async def test_what_the_protos_say_is_told(gateway: Running) -> None:
    described = (await gateway.http.get("/openapi.json")).json()

    create = described["paths"]["/v1/stores/{store_uid}/keys"]["post"]
    assert create["summary"] == "Creates a key and shows its text, this once."
    assert "A key can't give scopes that it lacks." in create["description"]
    assert create["x-scopes"] == ["keys:write"]
    body = create["requestBody"]["content"]["application/json"]["schema"]
    assert "store_uid" not in body["properties"]
    assert body["properties"]["expire_time"]["format"] == "date-time"
    list_runs = described["paths"]["/v1/cron/{service}/runs"]["get"]
    names = [parameter["name"] for parameter in list_runs["parameters"]]
    assert names == ["service", "job", "page_size", "page_token"]
    event = described["components"]["schemas"]["query.RecordedEvent"]
    assert event["properties"]["payload"]["description"] == "The event as the sender wrote it."
    assert "create_time" not in described["components"]["schemas"]["keys.Store"]["required"]
    kind = described["components"]["schemas"]["keys.KeyKind"]
    assert "`KEY_KIND_CRON`: `ck_`" in kind["description"]
