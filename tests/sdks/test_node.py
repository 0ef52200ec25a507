"""Back ends' SDKs for Node: whatever happens, each event arrives, and counts once."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config import Settings
from tests.gateway.conftest import STORE, WRITE_KEY, Mesh, Running
from tests.sdks.conftest import RunNode, arrived, count_answers, of_type, refuse_at_first

SEGMENT = "send_with_segment.mjs"
RUDDERSTACK = "send_with_rudderstack.cjs"


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return sorted(event["properties"]["number"] for event in of_type(events, "track"))


@pytest.mark.parametrize("script", [SEGMENT, RUDDERSTACK])
async def test_every_kind_of_event_arrives_as_it_was_made(
    mesh: Mesh, run_node: RunNode, script: str
) -> None:
    await run_node(script, WRITE_KEY, "206")

    events = arrived(mesh)
    assert len(events) == 211
    assert numbers(events) == list(range(206))
    (identified,) = of_type(events, "identify")
    traits = identified.get("traits") or identified["context"]["traits"]
    assert traits == {"plan": "gold", "email": "ada@shop.example"}
    (page,) = of_type(events, "page")
    assert (page["name"], page["properties"]["url"]) == ("Home", "/")
    assert [event["name"] for event in of_type(events, "screen")] == ["Basket"]
    assert [event["groupId"] for event in of_type(events, "group")] == ["tea-club"]
    assert [event["previousId"] for event in of_type(events, "alias")] == ["anonymous-1"]
    assert {event["userId"] for event in events} == {"ada"}
    assert {each.store_uid for each in mesh.appended} == {STORE}
    assert all(each.HasField("sent_time") for each in mesh.appended) or all(
        "sentAt" in event for event in events
    )


@pytest.mark.parametrize(
    "settings", [{"key_events_per_second": 2, "key_event_burst": 1}], indirect=True
)
async def test_segment_s_waits_as_long_as_it_is_told(
    gateway: Running, mesh: Mesh, run_node: RunNode, settings: Settings
) -> None:
    await run_node(SEGMENT, WRITE_KEY, "10")

    assert numbers(arrived(mesh)) == list(range(10))
    # The second of two batches was told to wait for three seconds. By itself it waits for one.
    assert await count_answers(gateway, 429) == 1


@pytest.mark.parametrize("script", [SEGMENT, RUDDERSTACK])
async def test_what_was_answered_503_comes_again(
    gateway: Running, mesh: Mesh, run_node: RunNode, script: str
) -> None:
    refuse_at_first(mesh, 5)

    await run_node(script, WRITE_KEY, "30")

    assert numbers(arrived(mesh)) == list(range(30))
    assert await count_answers(gateway, 503) >= 1
