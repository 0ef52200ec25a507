"""What trends, carts and attribution say over gRPC, what they refuse, and what was before."""

from __future__ import annotations

import json
from datetime import UTC, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from services.query.column_keeper import ColumnKeeper
from shoptrail.ingest.v1.event_pb2 import Event
from shoptrail.query.v1 import attribution_pb2, carts_pb2, trend_pb2
from shoptrail.query.v1 import query_pb2 as pb
from shoptrail.query.v1.attribution_pb2 import AttributionModel
from shoptrail.query.v1.report_pb2 import Interval, Measure
from tests.conftest import key_metadata
from tests.services.query.fake_ingest import IDENTIFY, NOON, PAGE, TRACK, happened, timestamp
from tests.services.query.scene import Scene, violations_of
from tests.services.query.test_report_answers import DAY, asked

HOUR = timedelta(hours=1)


def did(scene: Scene, hours: float, name: str, browser: str = "b1", **words: Any) -> Event:
    event = happened(
        scene.store_uid,
        name if name != "identify" else "",
        at=NOON + hours * HOUR,
        of={"": PAGE, "identify": IDENTIFY}.get(name, TRACK),
        payload=json.dumps(words).encode(),
    )
    event.anonymous_id, event.user_id = browser, words.get("user", "")
    return event


async def project(scene: Scene, *events: Event) -> None:
    await scene.project(*events)
    while await ColumnKeeper(scene.database, scene.columns).copy_page():
        pass


def priced(price: float, quantity: int = 1) -> dict[str, Any]:
    return {"product_id": "p", "price": price, "quantity": quantity, "currency": "EUR"}


def of_today(scene: Scene) -> dict[str, Any]:
    return {
        "store_uid": scene.store_uid,
        "start_time": timestamp(NOON - 12 * HOUR),
        "end_time": timestamp(NOON + 12 * HOUR),
    }


async def test_a_trend_is_told_by_period_and_compared(scene: Scene) -> None:
    red, blue = {"color": "red"}, {"color": "blue"}
    await project(
        scene,
        did(scene, -30, "Product Viewed", properties=red),
        did(scene, -6, "Product Viewed", properties=red),
        did(scene, -6, "Product Viewed", "b2", properties=red),
        did(scene, -6, "Product Viewed", "b2", properties=blue),
        did(scene, -1, "Product Viewed", "b2", properties=red),
    )

    report = await scene.query.ReportTrend(
        trend_pb2.ReportTrendRequest(
            **of_today(scene),
            interval=Interval.INTERVAL_HOUR,
            event="Product Viewed",
            breakdown="properties.color",
        ),
        **asked(scene),
    )

    assert len(report.period_times) == 24
    first, second = report.rows
    assert (first.value, first.event_count, first.person_count) == ("red", 3, 2)
    assert (first.previous_event_count, first.previous_person_count) == (1, 1)
    assert [first.event_counts[hour] for hour in (6, 11)] == [2, 1]
    assert [first.person_counts[hour] for hour in (6, 11)] == [2, 1]
    assert (second.value, second.event_count, second.previous_event_count) == ("blue", 1, 0)
    assert report.as_of.position == 5


async def test_carts_are_ordered_abandoned_recovered_emptied_or_open(scene: Scene) -> None:
    await project(
        scene,
        did(scene, -5, "Product Added", "ordered", properties=priced(10)),
        did(scene, -4.5, "Order Completed", "ordered", properties={"order_id": "1"}),
        did(scene, -5, "Product Added", "abandoned", properties=priced(3.35, 2)),
        did(scene, -4.9, "Product Removed", "abandoned", properties=priced(3.35)),
        did(scene, -6, "Product Added", "recovered", properties=priced(7)),
        did(scene, -5.5, "Checkout Started", "recovered"),
        did(scene, -3, "identify", "recovered", user="ada"),
        did(scene, -1, "Order Completed", "", user="ada", properties={"order_id": "2"}),
        did(scene, -5, "Product Added", "emptied", properties=priced(1)),
        did(scene, -4.99, "Product Removed", "emptied", properties=priced(1)),
        did(scene, 0, "Product Added", "open", properties=priced(1)),
        did(scene, -30, "Product Added", "yesterday", properties=priced(1)),
    )

    request = carts_pb2.ReportCartsRequest(**of_today(scene))
    report = await scene.query.ReportCarts(request, **asked(scene))
    request.abandoned_after.FromTimedelta(10 * HOUR)
    request.breakdown = "trust"
    patient = await scene.query.ReportCarts(request, **asked(scene))

    total = report.total
    assert total.cart_count == 5
    assert (total.ordered_count, total.abandoned_count, total.recovered_count) == (1, 1, 1)
    assert (total.emptied_count, total.open_count) == (1, 1)
    assert [(one.currency, one.amount) for one in total.abandoned_value] == [("EUR", "3.35")]
    assert [(one.currency, one.amount) for one in total.recovered_value] == [("EUR", "7.00")]
    assert (total.abandonment_rate, total.recovery_rate) == (1 / 3, 0.5)
    assert report.periods == [total]
    assert report.previous.abandoned_count == 1
    assert not report.rows
    assert (patient.total.ordered_count, patient.total.open_count) == (2, 2)
    assert [(row.value, row.figures.cart_count) for row in patient.rows] == [("claimed", 5)]
    assert not patient.total.HasField("recovery_rate")


async def test_orders_are_put_down_to_the_first_or_last_campaign(scene: Scene) -> None:
    def seen(days: int, campaign: str, browser: str) -> Event:
        context = {"campaign": {"source": "news", "name": campaign}} if campaign else {}
        return did(scene, -24 * days, "", browser, context=context)

    order = {"order_id": "1", "total": 20.05, "currency": "EUR"}
    await project(
        scene,
        seen(9, "autumn", "phone"),
        seen(5, "winter", "laptop"),
        seen(1, "", "laptop"),
        did(scene, -20, "identify", "phone", user="ada"),
        did(scene, -19, "identify", "laptop", user="ada"),
        did(scene, -2, "Order Completed", "", user="ada", properties=order),
        did(scene, -1, "Order Refunded", "", user="ada", properties={**order, "total": 5}),
        did(scene, -1, "Order Completed", "direct", properties={**order, "order_id": "2"}),
    )
    request = attribution_pb2.ReportAttributionRequest(
        store_uid=scene.store_uid, end_time=timestamp(NOON)
    )

    async def led() -> list[tuple[str, int, str, str]]:
        report = await scene.query.ReportAttribution(request, **asked(scene))
        assert report.as_of.position == 8
        return sorted(
            (row.value, row.order_count, row.revenue[0].gross, row.revenue[0].net)
            for row in report.rows
        )

    direct = ("", 1, "20.05", "20.05")
    assert await led() == [direct, ("news /  / winter", 1, "20.05", "15.05")]
    request.model = AttributionModel.ATTRIBUTION_MODEL_FIRST_TOUCH
    assert await led() == [direct, ("news /  / autumn", 1, "20.05", "15.05")]
    request.lookback.FromTimedelta(DAY)
    assert await led() == [("", 2, "40.10", "35.10")]


async def test_counts_and_products_are_compared_with_the_range_before(scene: Scene) -> None:
    product = {"product_id": "p"}
    order = {"order_id": "1", "products": [product]}
    await scene.project(
        *(did(scene, -hours, "Product Viewed", properties=product) for hours in (1, 2, 30)),
        did(scene, -1, "Order Completed", properties=order),
        did(scene, -30, "Order Completed", properties={**order, "order_id": "2"}),
        did(scene, -30, "Order Completed", properties={**order, "order_id": "3"}),
    )

    counts = await scene.count(
        pb.CountEventsRequest(**of_today(scene), interval=Interval.INTERVAL_HOUR)
    )
    views = await scene.query.CountMeasure(
        pb.CountMeasureRequest(**of_today(scene), measure=Measure.MEASURE_PRODUCT_VIEWS),
        **asked(scene),
    )
    products = await scene.query.ReportProducts(
        pb.ReportProductsRequest(**of_today(scene)), **asked(scene)
    )

    assert (counts.total_count, counts.previous_total_count) == (3, 3)
    assert {series.name: series.previous_count for series in counts.series} == {
        "Product Viewed": 1,
        "Order Completed": 2,
    }
    assert (views.previous_total_count, views.series[0].previous_count) == (1, 1)
    assert (products.products[0].previous_view_count, products.products[0].order_count) == (1, 1)
    assert products.products[0].previous_order_count == 2
    assert counts.period_times[0].ToDatetime(tzinfo=UTC) == NOON - 12 * HOUR


@pytest.mark.parametrize(
    ("method", "request_message", "wrong"),
    [
        (
            "ReportTrend",
            trend_pb2.ReportTrendRequest(
                store_uid="sto_x", event="page:", breakdown="x", filters=["="], limit=-1
            ),
            ["store_uid", "event", "breakdown", "filters[0]", "limit"],
        ),
        (
            "ReportCarts",
            carts_pb2.ReportCartsRequest(
                store_uid="sto_x",
                breakdown="x",
                filters=["y"],
                time_zone="Mars",
                abandoned_after=Duration(seconds=59),
            ),
            ["store_uid", "breakdown", "filters[0]", "time_zone", "abandoned_after"],
        ),
        (
            "ReportAttribution",
            attribution_pb2.ReportAttributionRequest(
                store_uid="sto_x",
                model=9,  # type: ignore[arg-type]
                trust=9,  # type: ignore[arg-type]
                breakdown="x",
                lookback=Duration(seconds=367 * 86400),
                filters=["z"],
                limit=-1,
            ),
            ["store_uid", "model", "trust", "breakdown", "lookback", "filters[0]", "limit"],
        ),
    ],
)
async def test_everything_wrong_is_named_at_once(
    scene: Scene, method: str, request_message: Any, wrong: list[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await getattr(scene.query, method)(
            request_message,
            timeout=5,
            metadata=key_metadata("reports:read", store_uid="sto_x"),
        )

    assert sorted(violations_of(failure)) == sorted(wrong)


@pytest.mark.parametrize(
    ("method", "request_message"),
    [
        ("ReportTrend", trend_pb2.ReportTrendRequest()),
        ("ReportCarts", carts_pb2.ReportCartsRequest()),
    ],
)
async def test_more_periods_than_fit_are_refused(
    scene: Scene, method: str, request_message: Any
) -> None:
    request_message.store_uid = scene.store_uid
    request_message.start_time.CopyFrom(timestamp(NOON - 401 * DAY))
    request_message.end_time.CopyFrom(timestamp(NOON))

    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await getattr(scene.query, method)(request_message, **asked(scene))

    assert list(violations_of(failure)) == ["start_time"]
