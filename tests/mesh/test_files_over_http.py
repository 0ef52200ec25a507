"""Lists of orders go in and files come out, through the whole mesh."""

from __future__ import annotations

import asyncio
import io
import json

import httpx
from pyarrow import parquet

from tests.mesh.conftest import RunningMesh, Shop


async def reconcile(client: httpx.AsyncClient, shop: Shop, *, orders: int) -> dict[str, object]:
    """The comparison, once as many orders are known as there must be."""
    listed = "order_id,total,currency\no-1,68.90,EUR\no-2,5.00,EUR\no-3,1,EUR\n"
    async with asyncio.timeout(20):
        while True:
            answer = await client.post(
                f"/v1/stores/{shop.store_uid}/orders:reconcile",
                json={"format": "CSV", "content": listed},
            )
            assert answer.status_code == 200, answer.text
            found: dict[str, object] = answer.json()
            if found["total"]["told_count"] == str(orders):  # type: ignore[index]
                return found
            await asyncio.sleep(0.1)


async def test_a_shop_compares_its_orders_and_takes_its_events_home(
    mesh: RunningMesh, shop: Shop
) -> None:
    orders = [
        {
            "type": "track",
            "event": "Order Completed",
            "anonymousId": "a",
            "properties": {"order_id": f"o-{number}", "total": total, "currency": "EUR"},
        }
        for number, total in ((1, 68.9), (2, 5.01))
    ]
    async with mesh.client(shop.write_key) as writer:
        assert (await writer.post("/v1/batch", json={"batch": orders})).status_code == 200
    async with mesh.client(shop.secret_key) as reader:
        compared = await reconcile(reader, shop, orders=2)
        path = f"/v1/stores/{shop.store_uid}/events:export"
        first = await reader.get(path, params={"page_size": "1"})
        token = first.headers["next-page-token"]
        second = await reader.get(path, params={"page_size": "1", "page_token": token})
        whole = await reader.get(path, params={"format": "PARQUET"})

    assert [
        (one["order_id"], one["kind"])
        for one in compared["differences"]  # type: ignore[attr-defined]
    ] == [
        ("o-2", "ORDER_DIFFERENCE_KIND_WRONG_AMOUNT"),
        ("o-3", "ORDER_DIFFERENCE_KIND_MISSING"),
    ]
    assert first.headers["content-type"] == "application/x-ndjson"
    assert (first.headers["exported-count"], first.headers["total-count"]) == ("1", "2")
    lines = [json.loads(page.content) for page in (first, second)]
    assert {line["payload"]["properties"]["order_id"] for line in lines} == {"o-1", "o-2"}
    assert second.headers["next-page-token"] == ""
    assert second.headers["exported-count"] == "2"
    rows = parquet.read_table(io.BytesIO(whole.content)).to_pylist()
    assert [row["uid"] for row in rows] == [line["uid"] for line in lines]
