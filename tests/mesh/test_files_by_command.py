"""The command line takes events home, and compares orders, through the whole mesh."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from pyarrow import parquet

from tests.mesh.conftest import RunningMesh, Shop

ROOT = Path(__file__).parents[2]
ORDERS = 12


async def start(mesh: RunningMesh, shop: Shop, *words: str) -> asyncio.subprocess.Process:
    """A command that begins, with the shop's secret key."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", *words),
        cwd=ROOT,
        env={**os.environ, "SHOPTRAIL_URL": mesh.url, "SHOPTRAIL_KEY": shop.secret_key},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(mesh: RunningMesh, shop: Shop, *words: str) -> tuple[int | None, bytes, str]:
    """The exit code of a command, and what it wrote to standard output and error."""
    process = await start(mesh, shop, *words)
    out, error = await process.communicate()
    return process.returncode, out, error.decode()


async def sell(mesh: RunningMesh, shop: Shop) -> None:
    """Tell of some orders, and wait until they are in reports and in the columns."""
    batch = [
        {
            "type": "track",
            "event": "Order Completed",
            "anonymousId": "a",
            "properties": {"order_id": f"o-{number:02}", "total": 10, "currency": "EUR"},
        }
        for number in range(ORDERS)
    ]
    async with mesh.client(shop.write_key) as writer:
        assert (await writer.post("/v1/batch", json={"batch": batch})).status_code == 200
    body = {"format": "CSV", "content": "order_id,total\no-00,10\n"}
    async with mesh.client(shop.secret_key) as reader, asyncio.timeout(20):
        while True:
            answer = await reader.post(f"/v1/stores/{shop.store_uid}/orders:reconcile", json=body)
            if answer.json()["total"]["told_count"] == str(ORDERS):
                return
            await asyncio.sleep(0.1)


def order_ids(lines: str) -> list[str]:
    return [json.loads(line)["payload"]["properties"]["order_id"] for line in lines.splitlines()]


async def test_events_are_exported_in_each_format_with_progress(
    mesh: RunningMesh, shop: Shop, tmp_path: Path
) -> None:
    await sell(mesh, shop)
    words = ("export", shop.store_uid)

    code, said, progress = await run(
        mesh, shop, "--json", *words, str(tmp_path / "events.ndjson"), "--page-size", "5"
    )
    aside = await run(mesh, shop, *words, "-", "--format", "csv", "--page-size", "5")
    parts = await run(
        mesh, shop, *words, str(tmp_path / "parts"), "--format", "parquet", "--page-size", "5"
    )
    again = await run(mesh, shop, *words, str(tmp_path / "parts"), "--format", "parquet")
    nowhere = await run(mesh, shop, *words, str(tmp_path / "no" / "file"))
    none = await run(mesh, shop, *words, "-", "--name", "Nothing Known")

    whole = [f"o-{number:02}" for number in range(ORDERS)]
    assert (code, progress) == (0, "")
    assert json.loads(said) == {"path": str(tmp_path / "events.ndjson"), "event_count": ORDERS}
    assert sorted(order_ids((tmp_path / "events.ndjson").read_text())) == whole
    assert (tmp_path / "events.ndjson").stat().st_mode & 0o077 == 0
    assert aside[0] == 0
    assert len(list(csv.DictReader(io.StringIO(aside[1].decode())))) == ORDERS
    assert aside[2].splitlines() == [f"{count} of 12 events" for count in (5, 10, 12)]
    assert parts[0] == 0
    names = sorted(path.name for path in (tmp_path / "parts").iterdir())
    assert names == [f"events-0000{number}.parquet" for number in (1, 2, 3)]
    rows = [row for name in names for row in parquet.read_table(tmp_path / "parts" / name)["uid"]]
    assert len(set(rows)) == ORDERS
    assert again[0] == nowhere[0] == 2
    assert none[:2] == (0, b"")


async def test_an_export_that_is_killed_goes_on_where_it_broke_off(
    mesh: RunningMesh, shop: Shop, tmp_path: Path
) -> None:
    await sell(mesh, shop)
    path, progress = tmp_path / "events.ndjson", tmp_path / "events.ndjson.progress"
    words = ("export", shop.store_uid, str(path), "--page-size", "1")

    process = await start(mesh, shop, *words)
    async with asyncio.timeout(20):
        while not progress.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    killed_early = not path.exists()
    with (tmp_path / "events.ndjson.part").open("ab") as part:
        part.write(b'{"half a pa')  # As of a page that was being written.
    other = await run(mesh, shop, *words, "--name", "Order Completed")
    code, _, said = await run(mesh, shop, *words)

    assert killed_early
    assert other[0] == 2
    assert "is of another export" in other[2]
    assert code == 0
    assert not said.startswith("1 of")
    assert sorted(order_ids(path.read_text())) == [f"o-{number:02}" for number in range(ORDERS)]
    assert os.listdir(tmp_path) == ["events.ndjson"]  # noqa: PTH208


async def test_orders_are_compared_and_the_exit_code_says_whether_they_differ(
    mesh: RunningMesh, shop: Shop, tmp_path: Path
) -> None:
    await sell(mesh, shop)
    same, other = tmp_path / "same.csv", tmp_path / "other.ndjson"
    lines = [f"o-{number:02},10.00,EUR" for number in range(ORDERS)]
    same.write_text("\n".join(["order_id,total,currency", *lines]))
    wrong: list[dict[str, Any]] = [
        {"order_id": f"o-{number:02}", "total": "10.00"} for number in range(2, ORDERS)
    ]
    wrong += [{"order_id": "o-01", "total": "9.99"}, {"order_id": "o-99", "total": "1.00"}]
    other.write_text("\n".join(map(json.dumps, wrong)))

    equal = await run(mesh, shop, "reconcile", shop.store_uid, str(same))
    differing = await run(mesh, shop, "reconcile", shop.store_uid, str(other))
    as_json = await run(mesh, shop, "--json", "reconcile", shop.store_uid, str(other))
    missing = await run(mesh, shop, "reconcile", shop.store_uid, str(tmp_path / "nowhere.csv"))
    refused = await run(mesh, shop, "reconcile", shop.store_uid, str(same), "--start", "soon")

    assert equal[0] == 0
    assert equal[1].decode().splitlines()[0] == "Nothing."
    assert differing[0] == 1
    found = [line.split()[:2] for line in differing[1].decode().splitlines()[1:4]]
    assert found == [["o-00", "extra"], ["o-01", "wrong"], ["o-99", "missing"]]
    *differences, sums = map(json.loads, as_json[1].decode().splitlines())
    assert as_json[0] == 1
    assert [one["order_id"] for one in differences] == ["o-00", "o-01", "o-99"]
    assert sums["total"]["wrong_amount_count"] == "1"
    assert missing[0] == refused[0] == 2
