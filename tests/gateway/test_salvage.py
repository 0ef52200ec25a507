"""What one event that is no JSON costs the others: nothing."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.salvage import Unsalvageable, cut_array, cut_object
from tests.gateway.conftest import WRITE_KEY, Mesh, Running

GOOD = b'{"event":"Viewed","messageId":"m","properties":{"a":[1,{"b":"]}\\\\\\""}]}}'
DEEP = b"[" * 100_000 + b"]" * 100_000
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "bad",
    [
        b'{"event":"Viewed","properties":' + DEEP + b"}",
        b'{"event":"\\x41"}',
        b'{"event":"a\x01b"}',
        b'{"event":"caf\xe9"}',
        b'{"event":NaN}',
        b'{"event":"A",}',
        b'{"event":"A" "userId":1}',
        b"{'event':1}",
        b"undefined",
        b'{"event":"\\ud83d","price":1.}',
    ],
    ids=lambda bad: repr(bad[:40]),
)
async def test_a_bad_event_reaches_ingest_as_it_is_and_its_neighbours_too(
    gateway: Running, mesh: Mesh, bad: bytes
) -> None:
    body = b'{"writeKey":"%b", "batch" : [%b , %b,%b]}' % (WRITE_KEY.encode(), GOOD, bad, GOOD)

    response = await gateway.http.post("/v1/batch", content=body)

    assert response.status_code == 200
    assert [entry["verdict"] for entry in response.json()["results"]] == ["rejected", "duplicate"]
    assert response.json()["results"][0]["index"] == 1
    payloads = list(mesh.appended[0].payloads)
    assert payloads == [GOOD, bad.replace(b"\\ud83d", b"\\ufffd"), GOOD]


async def test_what_stands_beside_a_bad_event_still_counts(gateway: Running, mesh: Mesh) -> None:
    body = (
        b'{"batch":[{"event":"A"},{"event":.}],"context":{"app":"shop"},'
        b'"sentAt":"2026-03-01T12:00:00Z","writeKey":"%b"}' % WRITE_KEY.encode()
    )

    await gateway.http.post("/v1/batch", content=body)

    (submission,) = mesh.appended
    assert submission.HasField("sent_time")
    assert list(submission.payloads) == [b'{"event":"A","context":{"app":"shop"}}', b'{"event":.}']


async def test_a_single_event_that_is_no_json_is_left_to_ingest(
    gateway: Running, mesh: Mesh
) -> None:
    body = b'{"event":NaN,"messageId":"m1","writeKey":"%b"}' % WRITE_KEY.encode()

    response = await gateway.http.post("/v1/track", content=body)

    assert response.json()["rejected"] == 1
    assert list(mesh.appended[0].payloads) == [body]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"{}}",
        b'{"a"}',
        b'{"a":1,}',
        b"{a:1}",
        b'{"a":"}',
        b'{"a":[}',
        b'{"a":{}]',
        b'{"a":1]}',
        b'{"a":"\\"}',
        b"{" + b'"a":[{},{}],' * 30_000 + b'"b":1}',
        b'{"a":"' + b"x" * (1024 * 1024) + b'"}',
    ],
    ids=lambda text: repr(text[:20]),
)
def test_what_has_no_clear_end_is_not_cut(text: bytes) -> None:
    with pytest.raises(Unsalvageable):
        cut_object(text)


def test_an_end_without_a_beginning_is_seen_at_once() -> None:
    began = time.process_time()
    for _ in range(1000):
        with pytest.raises(Unsalvageable):
            cut_object(b'{"a":1]}')

    assert time.process_time() - began < 5  # It took 60 ms each.


@settings(max_examples=30)
@given(st.dictionaries(st.text(), VALUES))
def test_valid_objects_are_cut_where_their_members_end(whole: dict[str, Any]) -> None:
    cut = cut_object(json.dumps(whole, indent=1).encode())

    assert {json.loads(name): json.loads(value) for name, value in cut.items()} == whole


@settings(max_examples=30)
@given(st.lists(VALUES))
def test_valid_arrays_are_cut_where_their_items_end(whole: list[Any]) -> None:
    text = json.dumps(whole, ensure_ascii=False).encode("utf-8", "surrogatepass")

    assert [json.loads(item.decode("utf-8", "surrogatepass")) for item in cut_array(text)] == whole


@given(st.binary(max_size=200) | st.text('[]{},:"\\a ', max_size=60).map(str.encode))
def test_no_bytes_make_it_fail_in_another_way(text: bytes) -> None:
    for cut in (cut_object, cut_array):
        try:
            cut(text)
        except Unsalvageable:
            continue
