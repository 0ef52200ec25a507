"""A shop's own list of orders is compared with what events told, over gRPC."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from services.query.column_keeper import ColumnKeeper
from services.query.order_lists import MOST_ORDERS
from shoptrail.ingest.v1.event_pb2 import Event
from shoptrail.query.v1 import reconciliation_pb2 as pb
from shoptrail.query.v1.reconciliation_pb2 import OrderDifferenceKind, OrderListFormat
from shoptrail.query.v1.report_pb2 import Trust
from tests.conftest import key_metadata
from tests.services.query.fake_ingest import NOON, happened, timestamp
from tests.services.query.scene import Scene, violations_of
from tests.services.query.test_report_answers import DAY, asked

MISSING, EXTRA, DOUBLED, WRONG = (
    OrderDifferenceKind.ORDER_DIFFERENCE_KIND_MISSING,
    OrderDifferenceKind.ORDER_DIFFERENCE_KIND_EXTRA,
    OrderDifferenceKind.ORDER_DIFFERENCE_KIND_DOUBLED,
    OrderDifferenceKind.ORDER_DIFFERENCE_KIND_WRONG_AMOUNT,
)
CSV, NDJSON = (
    OrderListFormat.ORDER_LIST_FORMAT_CSV,
    OrderListFormat.ORDER_LIST_FORMAT_NDJSON,
)


def bought(
    scene: Scene,
    order_id: str,
    total: float,
    *,
    days: float = 0,
    confirmed: bool = False,
    browser: str = "Firefox",
    **properties: Any,
) -> Event:
    words = {"order_id": order_id, "total": total, "currency": "EUR", **properties}
    event = happened(
        scene.store_uid,
        "Order Completed",
        at=NOON - days * DAY,
        payload=json.dumps({"properties": words}).encode(),
    )
    event.enrichment = json.dumps(
        {
            "browser": {"name": browser},
            "consent": {"categoryPreferences": {"analytics": True, "ads": False}},
            "confirmed": confirmed,
        }
    ).encode()
    return event


async def project(scene: Scene, *events: Event) -> None:
    await scene.project(*events)
    while await ColumnKeeper(scene.database, scene.columns).copy_page():
        pass


async def reconcile(scene: Scene, content: str, **fields: Any) -> pb.ReconcileOrdersResponse:
    request = pb.ReconcileOrdersRequest(
        store_uid=scene.store_uid,
        start_time=timestamp(NOON - 10 * DAY),
        end_time=timestamp(NOON + DAY),
        content=content,
        **{"format": CSV, **fields},
    )
    return await scene.query.ReconcileOrders(request, **asked(scene))


async def test_missing_extra_doubled_and_wrong_orders_are_told_apart(scene: Scene) -> None:
    await project(
        scene,
        bought(scene, "equal", 10.10, payment_method="card"),
        bought(scene, "extra", 7),
        bought(scene, "thrice", 5.5),
        bought(scene, "thrice", 5.5),
        bought(scene, "thrice", 5.5),
        bought(scene, "both", 8.25),
        bought(scene, "both", 8.25, confirmed=True),
        bought(scene, "cent", 19.99, browser="Safari"),
        bought(scene, "dollars", 3),
        bought(scene, "long ago", 4, days=30),
        bought(scene, "older extra", 4, days=30),
    )

    report = await reconcile(
        scene,
        "order_id,total,currency,payment_method,browser\r\n"
        "equal,10.1000,eur,,\r\n"
        "thrice,5.50,EUR,card,\r\n"
        "both,8.25,,invoice,\r\n"
        "cent,20.00,EUR,invoice,\r\n"
        "dollars,3,USD,invoice,\r\n"
        "lost,100.05,EUR,invoice,Chrome\r\n"
        'long ago,4,EUR,invoice,\r\n"twice, listed",1,EUR,card,\r\n"twice, listed",1,EUR,card,\r\n',
    )

    assert [(one.order_id, one.kind) for one in report.differences] == [
        ("cent", WRONG),
        ("dollars", WRONG),
        ("extra", EXTRA),
        ("lost", MISSING),
        ("thrice", DOUBLED),
        ("twice, listed", MISSING),
        ("twice, listed", DOUBLED),
    ]
    cent, dollars, extra, lost, thrice, twice, _ = report.differences
    assert (cent.listed.amount, cent.told.amount, cent.browser) == ("20.00", "19.99", "Safari")
    assert (dollars.listed.currency, dollars.told.currency) == ("USD", "EUR")
    assert not extra.HasField("listed") and extra.told.amount == "7.00"
    assert (extra.browser, extra.consent) == ("Firefox", "analytics")
    assert extra.complete_time == timestamp(NOON)
    assert not lost.HasField("told") and (lost.payment_method, lost.browser) == (
        "invoice",
        "Chrome",
    )
    assert (thrice.told_times, thrice.listed_times) == (3, 1)
    assert (twice.told_times, twice.listed_times) == (0, 2)
    total = report.total
    assert (total.listed_count, total.told_count, total.equal_count) == (8, 6, 4)
    assert (total.missing_count, total.extra_count) == (2, 1)
    assert (total.doubled_count, total.wrong_amount_count) == (2, 2)
    by_payment = {row.value: row.counts for row in report.by_payment_method}
    assert by_payment["card"].listed_count == 3  # Of one, the event says how it was paid for.
    assert by_payment["invoice"].missing_count == 1
    assert by_payment[""].extra_count == 1
    by_browser = {row.value: row.counts for row in report.by_browser}
    assert by_browser["Chrome"].missing_count == 1
    assert by_browser["Safari"].wrong_amount_count == 1
    assert {row.value for row in report.by_consent} == {"", "analytics"}
    assert [(one.currency, one.listed, one.told) for one in report.money] == [
        ("EUR", "148.90", "57.84"),
        ("USD", "3.00", "0.00"),
    ]
    assert report.as_of.position == 11


async def test_a_list_in_ndjson_is_read_exactly(scene: Scene) -> None:
    await project(scene, bought(scene, "a", 0.1), bought(scene, "12", 9999999.99))

    report = await reconcile(
        scene,
        '{"order_id": "a", "total": 0.1000, "currency": "EUR"}\n\n'
        '{"order_id": 12, "total": "9999999.99", "other": [1]}\n',
        format=NDJSON,
    )

    assert not report.differences
    assert report.total.equal_count == 2


async def test_what_anybody_may_have_claimed_can_be_left_out(scene: Scene) -> None:
    await project(
        scene, bought(scene, "a", 1), bought(scene, "b", 2, confirmed=True), bought(scene, "b", 9)
    )

    report = await reconcile(scene, "total;order_id\n1;a\n2;b\n", trust=Trust.TRUST_CONFIRMED)

    assert [(one.order_id, one.kind) for one in report.differences] == [("a", MISSING)]


async def test_differences_are_paged_and_the_token_is_bound_to_the_list(scene: Scene) -> None:
    await project(scene, *(bought(scene, f"o{number}", 1) for number in range(7)))
    content = "order_id,total\no3,2\nx,1\n"
    found: list[tuple[str, int]] = []
    token = ""
    while True:
        report = await reconcile(scene, content, page_size=2, page_token=token)
        assert report.total.extra_count == 6
        found += [(one.order_id, one.kind) for one in report.differences]
        token = report.next_page_token
        if not token:
            break
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await reconcile(scene, content + "y,1\n", page_token=token)
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    assert found == sorted(found) and len(found) == 8


@pytest.mark.parametrize(
    ("written_as", "content", "wrong"),
    [
        (CSV, "", ["content"]),
        (CSV, "id,total\n1,2\n", ["content"]),
        (
            CSV,
            "order_id,total\na,1\n,2\nb,1e3\nc,-1\nd,1_0\ne,\n",
            [f"content:{number}" for number in range(3, 8)],
        ),
        (CSV, 'order_id,total\na,1\n"b,2\n', ["content:3"]),
        (CSV, "order_id,total,currency\na,1,EURO\nb,99999999999,EUR\n", ["content:2", "content:3"]),
        (CSV, "order_id,total\n" + "a,1\n" * (MOST_ORDERS + 1), ["content"]),
        (CSV, "order_id,total\n" + "a,1\n" * 1_200_000, ["content"]),
        (CSV, "order_id,total\n" + "a,x\n" * 100, [f"content:{n}" for n in range(2, 22)]),
        (
            NDJSON,
            '{"order_id": "a", "total": 1}\n[1]\n{"order_id"\n{"total": true, "order_id": "b"}',
            ["content:2", "content:3", "content:4"],
        ),
        (NDJSON, "[" * 100_000, ["content:1"]),
        (OrderListFormat.ORDER_LIST_FORMAT_UNSPECIFIED, "", ["format"]),
    ],
    ids=range(11),
)
async def test_lines_that_cannot_be_read_are_named(
    scene: Scene, written_as: Any, content: str, wrong: list[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await reconcile(scene, content, format=written_as)

    assert sorted(violations_of(failure)) == sorted(wrong)


async def test_everything_wrong_with_the_question_is_named_at_once(scene: Scene) -> None:
    request = pb.ReconcileOrdersRequest(
        store_uid="sto_x",
        start_time=timestamp(NOON),
        end_time=timestamp(NOON),
        trust=7,  # type: ignore[arg-type]
        page_size=-1,
    )
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await scene.query.ReconcileOrders(
            request, timeout=5, metadata=key_metadata("reports:read", store_uid="sto_x")
        )

    assert sorted(violations_of(failure)) == [
        "format",
        "page_size",
        "start_time",
        "store_uid",
        "trust",
    ]
