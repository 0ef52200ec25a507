"""Whatever is sent to the gateway over HTTP, it answers, and none of it is its own fault."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from tests.drills.faults.drill import SEED
from tests.drills.faults.stage import Shop, Stage
from tests.drills.figures import FULL

pytestmark = pytest.mark.timeout(1800)

# For each operation that /openapi.json describes, in each process.
EXAMPLES = 45 if FULL else 2
CASES = 5_000 if FULL else 100
# One for each core: what makes the cases takes more time than what answers them.
PROCESSES = 2 if FULL else 1
MEMORY_BYTES = 100 * 1024 * 1024

EVENT = b'{"type":"track","event":"Paid","userId":"u","messageId":"m"'


async def test_no_case_made_from_the_description_is_answered_with_a_fault_of_ours(
    stage: Stage, tmp_path: Path
) -> None:
    shop = await stage.new_shop()

    counts = await asyncio.gather(
        *(count_cases(stage, shop, tmp_path, seed=SEED + number) for number in range(PROCESSES))
    )

    assert sum(counts) >= CASES
    await expect_alive(stage, shop)


async def count_cases(stage: Stage, shop: Shop, directory: Path, *, seed: int) -> int:
    """Send requests made from the description, good ones and bad ones; returns how many."""
    config = directory / f"{seed}.toml"
    config.write_text(f'[parameters]\n"path.store_uid" = "{shop.store_uid}"\n')
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", f"--config-file={config}", "--no-color"),
        *("run", f"http://{stage.gateway}/openapi.json"),
        *("--header", f"Authorization: Bearer {shop.secret_key}"),
        *("--checks", "not_a_server_error", "--phases", "fuzzing", "--mode", "all"),
        *("--max-examples", str(EXAMPLES), "--seed", str(seed)),
        *("--generation-database", "none"),
        # It would end the store.
        *("--exclude-path", "/v1/stores/{store_uid}"),
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    told = output.decode()
    assert process.returncode == 0, told[-100_000:]
    found = re.search(r"(\d[\d,]*) generated", told)
    assert found, told
    return int(found[1].replace(",", ""))


BODIES: Mapping[str, bytes] = {
    "nothing": b"",
    "not JSON": b"{",
    "no object": b"7",
    "a list": b"[]",
    "NaN": EVENT + b',"properties":{"total":NaN}}',
    "an infinite number": EVENT + b',"properties":{"total":1e999}}',
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "deep in an event": EVENT + b',"properties":' + b"[" * 900 + b"]" * 900 + b"}",
    "half an emoji": EVENT + b',"properties":{"a":"\\ud800"}}',
    "bytes that are no UTF-8": EVENT + b',"properties":{"a":"\xff\xfe"}}',
    "zero bytes": b"\0" * 1000,
    "an escaped zero byte": EVENT + b',"properties":{"a":"\\u0000"}}',
    "the same name many times": b"{" + b'"batch":[],' * 50_000 + b'"batch":[]}',
    "a long number": EVENT + b',"properties":{"a":' + b"9" * 100_000 + b"}}",
    "a byte order mark": b"\xef\xbb\xbf" + EVENT + b"}",
    "UTF-16": (EVENT + b"}").decode().encode("utf-16"),
    "an empty batch": b'{"batch":[]}',
    "a batch of nothings": b'{"batch":[' + b"null," * 5_000 + b"null]}",
    "a batch that is none": b'{"batch":{"0":{}}}',
    "a large event": EVENT + b',"properties":{"a":"' + b"x" * 2_000_000 + b'"}}',
    "too much": b" " * (9 * 1024 * 1024),
}


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/track"] if FULL else ["/v1/batch"])
async def test_bodies_that_no_sender_means_are_refused_or_accounted_for(
    stage: Stage, path: str
) -> None:
    shop = await stage.new_shop()
    before = stage.memory_bytes("gateway"), stage.memory_bytes("ingest")
    headers = {"Authorization": f"Bearer {shop.write_key}", "Content-Type": "application/json"}
    async with httpx.AsyncClient(
        base_url=f"http://{stage.gateway}", headers=headers, timeout=20
    ) as client:
        for name, body in BODIES.items():
            for packed in (False, True):
                encoded = gzip.compress(body, 1) if packed else body
                extra = {"Content-Encoding": "gzip"} if packed else {}
                answer = await client.post(path, content=encoded, headers=extra)
                assert answer.status_code in (200, 400, 413), (name, packed, answer.text)
                if answer.status_code == 200:
                    told = answer.json()
                    kinds = ("accepted", "duplicates", "rejected", "quota")
                    assert sum(told[kind] for kind in kinds) == told["received"], name
        broken = await client.post(path, content=b"x", headers={"Content-Encoding": "gzip"})
        bomb = gzip.compress(bytes(200 * 1024 * 1024))
        burst = await client.post(path, content=bomb, headers={"Content-Encoding": "gzip"})

    assert (broken.status_code, burst.status_code) == (400, 413)
    assert json.loads(burst.content)
    after = stage.memory_bytes("gateway"), stage.memory_bytes("ingest")
    assert all(now - then < MEMORY_BYTES for now, then in zip(after, before, strict=True))
    await expect_alive(stage, shop)


async def expect_alive(stage: Stage, shop: Shop) -> None:
    """Fail if the store can't be read any more."""
    headers = {"Authorization": f"Bearer {shop.secret_key}"}
    async with httpx.AsyncClient(base_url=f"http://{stage.gateway}", headers=headers) as client:
        answer = await client.get(f"/v1/stores/{shop.store_uid}", timeout=20)
    assert answer.status_code == 200
