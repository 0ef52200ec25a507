"""What reports say over gRPC, and what they refuse."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import grpc
import pytest

from common.uid import new_uid
from shoptrail.ingest.v1.event_pb2 import Event, EventType
from shoptrail.query.v1 import query_pb2 as pb
from shoptrail.query.v1.report_pb2 import Interval, Measure, ProductRanking, Trust
from tests.conftest import key_metadata
from tests.services.query.fake_ingest import ALIAS, IDENTIFY, NOON, PAGE, TRACK, happened, timestamp
from tests.services.query.scene import Scene, violations_of

DAY = timedelta(days=1)


def did(
    scene: Scene,
    name: str,
    *,
    days: int = 0,
    browser: str = "b1",
    user: str = "",
    of: EventType.ValueType = TRACK,
    **words: Any,
) -> Event:
    event = happened(
        scene.store_uid,
        name,
        at=NOON - days * DAY,
        of=of,
        payload=json.dumps(words).encode(),
    )
    event.anonymous_id, event.user_id = browser, user
    return event


def asked(scene: Scene, *scopes: str) -> dict[str, Any]:
    return {
        "timeout": 10,
        "metadata": key_metadata(*(scopes or ("reports:read",)), store_uid=scene.store_uid),
    }


async def visitors(scene: Scene) -> int:
    report = await scene.query.CountVisitors(
        pb.CountVisitorsRequest(store_uid=scene.store_uid), **asked(scene)
    )
    return report.visitor_count


async def test_what_a_browser_did_before_it_was_identified_is_the_users(scene: Scene) -> None:
    await scene.project(
        did(scene, "", of=PAGE, browser="phone"), did(scene, "", of=PAGE, browser="laptop")
    )
    strangers = await visitors(scene)
    await scene.project(
        did(scene, "", of=IDENTIFY, browser="phone", user="ada"),
        did(scene, "", of=IDENTIFY, browser="laptop", user="ada"),
    )

    assert (strangers, await visitors(scene)) == (2, 1)


async def test_two_users_of_one_browser_stay_two(scene: Scene) -> None:
    await scene.project(
        did(scene, "", of=PAGE),
        did(scene, "", of=IDENTIFY, user="ada"),
        did(scene, "", of=IDENTIFY, user="bob"),
    )

    assert await visitors(scene) == 2


async def test_aliases_make_one_person_of_users_in_any_sequence(scene: Scene) -> None:
    await scene.project(*(did(scene, "x", user=user) for user in "abcd"))
    for new, old in (("a", "b"), ("c", "d"), ("d", "b")):
        await scene.project(did(scene, "", of=ALIAS, user=new, previousId=old))

    assert await visitors(scene) == 1


async def test_revenue_is_compared_with_the_period_before(scene: Scene) -> None:
    await scene.project(
        did(scene, "Order Completed", properties=_order("a", 20.10)),
        did(scene, "Order Completed", properties=_order("a", 20.10)),
        did(scene, "Order Completed", days=1, properties=_order("b", 0.2)),
        did(scene, "Order Refunded", properties=_order("b", 0.1)),
        did(scene, "Order Completed", days=2, properties=_order("c", 10)),
        did(scene, "Order Completed", days=3, properties=_order("d", 0.05)),
        did(scene, "Order Completed", days=9, properties=_order("e", 1000)),
    )

    report = await scene.query.ReportRevenue(
        pb.ReportRevenueRequest(
            store_uid=scene.store_uid,
            start_time=timestamp(NOON - DAY),
            end_time=timestamp(NOON + timedelta(hours=1)),
        ),
        **asked(scene),
    )

    [euros] = report.currencies
    assert euros.currency == "EUR"
    assert [period.gross for period in euros.periods] == ["0.20", "20.10"]
    assert (euros.total.order_count, euros.total.gross, euros.total.net) == (2, "20.30", "20.20")
    assert (euros.total.refunded, euros.total.average_order) == ("0.10", "10.15")
    assert (euros.previous.order_count, euros.previous.gross) == (2, "10.05")


async def test_what_the_shop_itself_says_of_an_order_goes_before_what_a_page_claims(
    scene: Scene,
) -> None:
    claimed = did(scene, "Order Completed", properties=_order("a", 1_000_000))
    confirmed = did(scene, "Order Completed", days=1, properties=_order("a", 20.10))
    confirmed.enrichment = b'{"confirmed":true}'
    only_claimed = did(scene, "Order Completed", properties=_order("b", 5))
    await scene.project(claimed, confirmed, only_claimed)

    async def gross(trust: Trust.ValueType) -> str:
        request = pb.ReportRevenueRequest(store_uid=scene.store_uid, trust=trust)
        request.end_time.CopyFrom(timestamp(NOON + DAY))
        [euros] = (await scene.query.ReportRevenue(request, **asked(scene))).currencies
        return euros.total.gross

    assert await gross(Trust.TRUST_UNSPECIFIED) == "25.10"
    assert await gross(Trust.TRUST_CONFIRMED) == "20.10"
    assert await gross(Trust.TRUST_CLAIMED) == "5.00"


def _order(order_id: str, total: float) -> dict[str, Any]:
    return {"order_id": order_id, "total": total, "currency": "eur"}


async def test_products_have_rates_from_view_to_cart_to_order(scene: Scene) -> None:
    tea = {"product_id": "tea", "name": "Tea", "price": 2.5}
    order = {"order_id": "o", "products": [{**tea, "quantity": 3}, {"sku": "cup", "price": 4}]}
    await scene.project(
        *(did(scene, "Product Viewed", properties=tea) for _ in range(4)),
        *(did(scene, "Product Added", properties=tea) for _ in range(2)),
        did(scene, "Order Completed", properties=order),
        did(scene, "Order Completed", browser="another tab", properties=order),
    )

    for ranking in (ProductRanking.PRODUCT_RANKING_ORDERS, ProductRanking.PRODUCT_RANKING_VIEWS):
        report = await scene.query.ReportProducts(
            pb.ReportProductsRequest(store_uid=scene.store_uid, ranking=ranking), **asked(scene)
        )
        found = {product.product_id: product for product in report.products}["tea"]
        assert (found.name, found.order_count, found.quantity) == ("Tea", 1, 3)
        assert [(money.currency, money.amount) for money in found.revenue] == [("XXX", "7.50")]
        assert (found.view_to_cart_rate, found.cart_to_order_rate) == (0.5, 0.5)


async def test_searches_without_a_result_are_told_apart(scene: Scene) -> None:
    await scene.project(
        did(scene, "Products Searched", properties={"query": " Green  Tea "}),
        did(scene, "Products Searched", properties={"query": "green tea", "results_count": 3}),
        did(scene, "Products Searched", properties={"query": "tee", "results_count": 0}),
        did(scene, "Products Searched", properties={"query": "tee", "products": []}),
    )

    async def terms(measure: Measure.ValueType) -> dict[str, int]:
        report = await scene.query.CountMeasure(
            pb.CountMeasureRequest(store_uid=scene.store_uid, measure=measure), **asked(scene)
        )
        return {series.name: series.total_count for series in report.series}

    assert await terms(Measure.MEASURE_SEARCHES) == {"green tea": 2, "tee": 2}
    assert await terms(Measure.MEASURE_SEARCHES_WITHOUT_RESULT) == {"tee": 2}


async def test_a_track_event_called_page_is_told_apart_from_pages(scene: Scene) -> None:
    await scene.project(
        did(scene, "page"), did(scene, "Home", of=PAGE), did(scene, "Home", of=PAGE)
    )

    both = await scene.count(pb.CountEventsRequest(names=["page"]))
    tracked = await scene.count(pb.CountEventsRequest(types=["track"]))

    assert [(one.type, one.name, one.total_count) for one in both.series] == [
        ("page", "page", 2),
        ("track", "page", 1),
    ]
    assert [(one.type, one.total_count) for one in tracked.series] == [("track", 1)]


_BROKEN: dict[str, Any] = {"store_uid": "sto_x", "interval": 9, "time_zone": "Mars"}
_WRONG_ALWAYS = ["interval", "store_uid", "time_zone"]


@pytest.mark.parametrize(
    ("method", "request_message", "wrong"),
    [
        ("CountEvents", pb.CountEventsRequest(**_BROKEN, types=["tarck"]), ["types"]),
        (
            "CountMeasure",
            pb.CountMeasureRequest(**_BROKEN, names=["a"] * 51),
            ["measure", "names"],
        ),
        ("CountVisitors", pb.CountVisitorsRequest(**_BROKEN), []),
        ("ReportSessions", pb.ReportSessionsRequest(**_BROKEN, breakdown=77), ["breakdown"]),  # type: ignore[arg-type]  # what a newer caller might send
        ("ReportRevenue", pb.ReportRevenueRequest(**_BROKEN, trust=77), ["trust"]),  # type: ignore[arg-type]  # likewise
        (
            "ReportProducts",
            pb.ReportProductsRequest(**_BROKEN, ranking=77, limit=-1),  # type: ignore[arg-type]  # likewise
            ["limit", "ranking"],
        ),
    ],
)
async def test_everything_wrong_with_a_report_is_named_at_once(
    scene: Scene, method: str, request_message: Any, wrong: list[str]
) -> None:
    metadata = key_metadata("reports:read", store_uid="sto_x")
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await getattr(scene.query, method)(request_message, timeout=5, metadata=metadata)

    assert sorted(violations_of(failure)) == sorted(_WRONG_ALWAYS + wrong)


@pytest.mark.parametrize(
    "method", ["CountMeasure", "CountVisitors", "ReportSessions", "ReportRevenue", "ReportProducts"]
)
async def test_reports_are_for_keys_of_the_store_with_the_scope(scene: Scene, method: str) -> None:
    request = getattr(pb, f"{method}Request")(store_uid=scene.store_uid)
    for metadata in (
        key_metadata("events:read", store_uid=scene.store_uid),
        key_metadata("reports:read", store_uid=new_uid("sto")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await getattr(scene.query, method)(request, timeout=5, metadata=metadata)
        assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("zone", "start", "end"),
    [
        ("Europe/Berlin", "2026-03-29T00:00:00+01:00", "2026-04-02T00:00:00+02:00"),
        ("Pacific/Apia", "2011-12-31T00:00:00+14:00", "2012-01-02T00:00:00+14:00"),
        ("UTC", "1981-01-01T00:00:00+00:00", "1984-01-01T00:00:00+00:00"),
    ],
)
async def test_the_period_before_ends_where_the_range_begins(
    scene: Scene, zone: str, start: str, end: str
) -> None:
    request = pb.CountVisitorsRequest(
        store_uid=scene.store_uid, time_zone=zone, interval=Interval.INTERVAL_DAY
    )
    request.start_time.FromJsonString(start)
    request.end_time.FromJsonString(end)
    begin = request.start_time.ToDatetime(tzinfo=NOON.tzinfo)
    await scene.project(
        *(
            happened(scene.store_uid, at=begin + timedelta(hours=hours), of=PAGE)
            for hours in (-1, 1)
        )
    )

    report = await scene.query.CountVisitors(request, **asked(scene))

    assert (report.visitor_count, report.previous_visitor_count) == (1, 1)
