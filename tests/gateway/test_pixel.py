"""Events that come as the address of an image."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from typing import Any

import pytest

from gateway.config import Settings
from gateway.pixel import PIXEL_PATHS
from tests.gateway.conftest import STORE, WRITE_KEY, Mesh, Running

OPENED = {"event": "Mail Opened", "userId": "ada", "properties": {"subject": "Tea? ~ Süß"}}


def events_of(mesh: Mesh) -> list[Any]:
    return [json.loads(payload) for each in mesh.appended for payload in each.payloads]


async def get_image(gateway: Running, path: str, **params: str) -> Any:
    """The answer's headers, once it is the image."""
    response = await gateway.http.get(path, params=params)
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/gif"
    assert response.headers["cache-control"] == "no-store"
    assert response.content.startswith(b"GIF89a")
    assert response.content.endswith(b";")
    return response.headers


@pytest.mark.parametrize("ending", ["", ".gif"])
@pytest.mark.parametrize("path", PIXEL_PATHS)
async def test_each_pixel_is_an_event_of_its_type(
    gateway: Running, mesh: Mesh, path: str, ending: str
) -> None:
    data = b64encode(json.dumps({**OPENED, "writeKey": WRITE_KEY}).encode()).decode()

    headers = await get_image(gateway, path + ending, data=data)

    assert "x-failure" not in headers
    (submission,) = mesh.appended
    assert (submission.store_uid, submission.default_type) == (STORE, PIXEL_PATHS[path])
    assert events_of(mesh) == [{**OPENED, "writeKey": WRITE_KEY}]


@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode])
@pytest.mark.parametrize("padded", [True, False])
async def test_base64_of_either_kind_is_read(
    gateway: Running, mesh: Mesh, encode: Any, padded: bool
) -> None:
    for filler in ("", "?", "??", "???>>>"):
        event = {"event": "Mail Opened", "filler": filler}
        data = encode(json.dumps(event).encode()).decode()
        data = data if padded else data.rstrip("=")
        # As it stands in a mail, where nobody escapes what `+` means.
        response = await gateway.http.get(f"/v1/pixel/track?data={data}&writeKey={WRITE_KEY}")
        assert response.status_code == 200
        assert events_of(mesh)[-1] == event


async def test_the_fields_of_an_event_may_be_the_query_s(gateway: Running, mesh: Mesh) -> None:
    await get_image(
        gateway,
        "/pixel/v1/track",
        writeKey=WRITE_KEY,
        event="Mail Opened",
        userId="ada",
        **{
            "properties.subject": "Tea & cups",
            "properties.campaign.name": "May",
            "userId.name": "what has a value has no fields",
            "context.traits.plan": "",
        },
    )

    assert events_of(mesh) == [
        {
            "writeKey": WRITE_KEY,
            "event": "Mail Opened",
            "userId": "ada",
            "properties": {"subject": "Tea & cups", "campaign": {"name": "May"}},
            "context": {"traits": {"plan": ""}},
        }
    ]


@pytest.mark.parametrize(
    ("params", "failure"),
    [
        ({}, "key_missing"),
        ({"writeKey": "pk_unknown", "event": "Mail Opened"}, "key_not_valid"),
        ({"data": "not base64!", "writeKey": WRITE_KEY}, "invalid_request"),
        ({"data": b64encode(b"[1]").decode(), "writeKey": WRITE_KEY}, "invalid_request"),
        ({f"a{n}": "" for n in range(300)}, "invalid_request"),
        ({"." * 500: "deep"}, "key_missing"),
    ],
)
async def test_whatever_is_wrong_there_is_an_image_and_a_header_says_why(
    gateway: Running, mesh: Mesh, params: dict[str, str], failure: str
) -> None:
    headers = await get_image(gateway, "/v1/pixel/track", **params)

    assert headers["x-failure"] == failure
    assert mesh.appended == []
    metrics = (await gateway.http.get("/metrics")).text
    counted = f'reason="{failure.upper()}",route="/v1/pixel/track"'
    assert f"http_failures_total{{{counted}}} 1.0" in metrics


async def test_there_is_an_image_when_ingest_is_away(gateway: Running, mesh: Mesh) -> None:
    await mesh.stop("ingest")

    headers = await get_image(gateway, "/v1/pixel/track", event="A", writeKey=WRITE_KEY)

    assert headers["x-failure"] == "dependency_unavailable"


async def test_looking_for_an_image_is_no_event(gateway: Running, mesh: Mesh) -> None:
    response = await gateway.http.head("/v1/pixel/track", params={"writeKey": WRITE_KEY})

    assert response.status_code == 200
    assert mesh.appended == []


@pytest.mark.parametrize(
    "settings", [{"key_events_per_second": 0.001, "key_event_burst": 1}], indirect=True
)
async def test_a_key_that_sends_too_much_gets_the_image_only(
    gateway: Running, mesh: Mesh, settings: Settings
) -> None:
    for _ in range(3):
        headers = await get_image(gateway, "/v1/pixel/track", event="A", writeKey=WRITE_KEY)

    assert int(headers["retry-after"]) > 0
    assert len(mesh.appended) == 1
