"""Whatever bodies a fuzzer makes, they are refused or each of their events has a verdict."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.envelope import Sent
from tests.drills.faults.drill import SEED
from tests.drills.figures import FULL
from tests.drills.hostile.way_of_a_body import expect_all

pytestmark = pytest.mark.timeout(1800)

RUNS = 200_000 if FULL else 5_000
LONGEST_BODY = 4096
_CHECKOUT = Path(__file__).parents[3]

ORDER: Mapping[str, Any] = {
    "order_id": "7",
    "total": 19.5,
    "currency": "EUR",
    "products": [{"product_id": "tea", "price": "9.5", "quantity": 2}],
}
# What it begins with. Mutations of these get further than noise.
SEEDS: Sequence[Mapping[str, Any]] = (
    {"type": "track", "event": "Order Completed", "userId": "u", "properties": ORDER},
    {"type": "identify", "userId": 7, "anonymousId": "a", "traits": {"email": "a@b.example"}},
    {"type": "page", "anonymousId": "a", "context": {"page": {"url": "https://shop.example/?utm_source=x"}}},
    {"type": "alias", "userId": "u", "previousId": "a", "messageId": "m"},
    {"type": "track", "event": "Products Searched", "userId": "u", "properties": {"query": "tea"}},
    {
        "batch": [{"type": "track", "event": "Viewed", "userId": "u", "messageId": "\ud83c"}],
        "sentAt": "2026-11-22T12:00:00.000Z",
        "context": {"ip": "192.0.2.7", "consent": {"categoryPreferences": {"ads": True}}},
        "writeKey": "k",
    },
)  # fmt: skip


async def test_no_body_raises_what_nobody_expects_or_loses_an_event(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS):
        (corpus / str(number)).write_bytes(json.dumps(seed).encode())

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.drills.hostile.fuzz_json"),
        *(f"-runs={RUNS}", f"-seed={SEED}", f"-max_len={LONGEST_BODY}"),
        *("-timeout=10", f"-artifact_prefix={tmp_path}/", str(corpus)),
        cwd=_CHECKOUT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()

    told = output.decode(errors="replace")
    assert process.returncode == 0, told[-10_000:]
    done = re.search(r"Done (\d+) runs", told)
    assert done and int(done[1]) >= RUNS, told[-2_000:]


async def test_a_reader_that_loses_an_event_is_found_out() -> None:
    with pytest.raises(AssertionError, match="got lost"):
        expect_all(b'{"batch":[{},{}]}', Sent(None, payloads=[b"{}"]))
