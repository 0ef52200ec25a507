"""What Query writes and asks goes to one shard of Vitess, and where it doesn't, it is said why."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from deploy.vitess.placement import EVERYWHERE, QUERY
from deploy.vitess.routing import unrouted_tables
from shoptrail.query.v1 import query_pb2 as pb
from tests.conftest import key_metadata
from tests.services.query.fake_ingest import IDENTIFY, NOON, PAGE, happened, timestamp
from tests.services.query.scene import Scene
from tests.statements import caught, without_shard

_ORDER = (
    b'{"order_id": "1", "currency": "EUR", "revenue": 20, '
    b'"products": [{"product_id": "cup", "price": 10, "quantity": 2}]}'
)


@pytest.mark.parametrize("databases", ["mariadb"], indirect=True)
async def test_every_statement_of_the_hot_path_names_its_shard(scene: Scene) -> None:
    with caught() as statements:
        for minute in (0, 5, 2):
            at = NOON + timedelta(minutes=minute)
            await scene.project(
                happened(scene.store_uid, at=at),
                happened(scene.store_uid, "", at=at, of=PAGE),
                happened(scene.store_uid, "", at=at, of=IDENTIFY),
                happened(scene.store_uid, "Order Completed", at=at, payload=_ORDER),
            )
        start, end = timestamp(NOON - timedelta(hours=1)), timestamp(NOON + timedelta(hours=1))
        await scene.count(pb.CountEventsRequest(start_time=start, end_time=end))
        await scene.list(pb.ListEventsRequest(page_size=2))
        asked: dict[str, Any] = {
            "timeout": 10,
            "metadata": key_metadata("reports:read", store_uid=scene.store_uid),
        }
        of_store: dict[str, Any] = {
            "store_uid": scene.store_uid,
            "start_time": start,
            "end_time": end,
        }
        await scene.query.CountVisitors(pb.CountVisitorsRequest(**of_store), **asked)
        await scene.query.ReportSessions(pb.ReportSessionsRequest(**of_store), **asked)
        await scene.query.ReportRevenue(pb.ReportRevenueRequest(**of_store), **asked)
        await scene.query.ReportProducts(pb.ReportProductsRequest(**of_store), **asked)

    unrouted = {each for each in statements if unrouted_tables(each, QUERY)}
    excused = {
        each: reason
        for each in unrouted
        for pattern, reason in EVERYWHERE["query"].items()
        if re.search(pattern, each)
    }
    assert len(set(statements)) > 20
    assert unrouted - set(excused) == set()
    assert set(excused.values()) == set(EVERYWHERE["query"].values()), "an excuse for nothing"

    careless = [
        without
        for each in set(statements) - unrouted
        if (without := without_shard(each, dict(QUERY))) is not None
    ]
    assert len(careless) >= 10
    assert all(unrouted_tables(each, QUERY) for each in careless), careless
