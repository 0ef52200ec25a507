"""The script as the gateway serves it."""

from __future__ import annotations

import gzip

from deploy import tracking_reference
from services.ingest.catalogue import ENTRIES
from tests.gateway.conftest import Running

MOST_BYTES = 4096


async def test_the_script_is_small_and_kept_by_browsers(gateway: Running) -> None:
    answer = await gateway.http.get("/shoptrail.js")
    plain = await gateway.http.get("/shoptrail.js", headers={"Accept-Encoding": "identity"})
    again = await gateway.http.get(
        "/shoptrail.js", headers={"If-None-Match": answer.headers["etag"]}
    )
    head = await gateway.http.head("/shoptrail.js")

    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) <= MOST_BYTES
    assert len(gzip.compress(plain.content, 9)) <= MOST_BYTES
    assert "content-encoding" not in plain.headers
    assert plain.content == answer.content
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=3600"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert (again.status_code, again.content) == (304, b"")
    assert head.status_code == 200


def test_the_reference_and_the_types_are_those_of_the_catalogue() -> None:
    assert tracking_reference.PAGE.read_text() == tracking_reference.describe_tracking()
    assert tracking_reference.TYPES.read_text() == tracking_reference.describe_types()
    assert tracking_reference.OCCASIONS.keys() == {entry.name for entry in ENTRIES}
