"""Whatever is sent to the gateway over HTTP, it answers, and none of it is its own fault."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import httpx
import pytest

from tests.drills.faults.drill import SEED
from tests.drills.faults.stage import Stage
from tests.drills.figures import FULL

pytestmark = pytest.mark.timeout(1800)

# For each operation that /openapi.json describes.
EXAMPLES = 60 if FULL else 2
PHASES = "coverage,fuzzing" if FULL else "fuzzing"
CASES = 5_000 if FULL else 100

# What would end the test's own store or key. Their refusals are tested elsewhere.
_SPARED = ("DELETE /v1/stores/{store_uid}",)


async def test_no_case_made_from_the_description_is_answered_with_a_fault_of_ours(
    stage: Stage, tmp_path: Path
) -> None:
    shop = await stage.new_shop()
    config = tmp_path / "schemathesis.toml"
    config.write_text(f'[parameters]\n"path.store_uid" = "{shop.store_uid}"\n')
    spared = [f"--exclude-path={name.partition(' ')[2]}" for name in _SPARED]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", f"--config-file={config}", "--no-color"),
        *("run", f"http://{stage.gateway}/openapi.json"),
        *("--header", f"Authorization: Bearer {shop.secret_key}"),
        *("--checks", "not_a_server_error", "--phases", PHASES),
        *("--max-examples", str(EXAMPLES), "--seed", str(SEED), "--workers", "4"),
        *("--generation-database", "none", "--mode", "all"),
        *spared,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    told = output.decode()

    assert process.returncode == 0, told[:20_000]
    found = re.search(r"(\d[\d,]*) generated", told)
    assert found, told[-8000:]
    assert int(found[1].replace(",", "")) >= CASES, told[-3000:]
    async with httpx.AsyncClient(base_url=f"http://{stage.gateway}") as client:
        headers = {"Authorization": f"Bearer {shop.secret_key}"}
        answer = await client.get(f"/v1/stores/{shop.store_uid}", headers=headers)
    assert answer.status_code == 200
