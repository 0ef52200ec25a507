"""Answers `ReconcileOrders`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from common.digest import digest_of
from common.errors import InvalidRequest
from common.page_token import PageTokens, read_page_size
from services.query.amounts import as_amount
from services.query.answers.times import as_timestamp
from services.query.columns import EventColumns
from services.query.order_lists import (
    MOST_BYTES,
    ListedOrder,
    ListNotReadable,
    read_csv,
    read_ndjson,
)
from services.query.orders import Trust
from services.query.questions import QuestionReader
from services.query.reconciliation import ComparedOrder, Counts, Difference, reconcile
from shoptrail.query.v1 import reconciliation_pb2, report_pb2
from shoptrail.query.v1.reconciliation_pb2 import OrderListFormat

_DIFFERENCES, _MOST_DIFFERENCES = 500, 5000
_MOST_ROWS = 100
_READERS = {
    OrderListFormat.ORDER_LIST_FORMAT_CSV: read_csv,
    OrderListFormat.ORDER_LIST_FORMAT_NDJSON: read_ndjson,
}


async def answer(
    request: reconciliation_pb2.ReconcileOrdersRequest,
    questions: QuestionReader,
    columns: EventColumns,
    page_tokens: PageTokens,
) -> reconciliation_pb2.ReconcileOrdersResponse:
    """How the shop's list and the events' orders differ, but for `as_of`."""
    violations: dict[str, str] = {}
    if request.trust and request.trust not in set(map(int, Trust)):
        violations["trust"] = "must be CLAIMED or CONFIRMED"
    try:
        page_size = read_page_size(
            request.page_size, default=_DIFFERENCES, largest=_MOST_DIFFERENCES
        )
    except InvalidRequest as error:
        violations |= error.violations
        page_size = 0
    # In a thread: to read and compare tens of thousands of orders would hold up everyone else.
    listed = await asyncio.to_thread(_read_list, request, violations)
    scope = questions.read_scope(request, violations)
    place = page_tokens.open(request)
    told = await columns.list_orders(scope, [digest_of(order.order_id) for order in listed])
    trusts = {request.trust} if request.trust else set(Trust)
    found = await asyncio.to_thread(
        reconcile,
        listed,
        [order for order in told if order.trust in trusts],
        start_time=scope.start_time,
        end_time=scope.end_time,
    )
    after = (str(place[0]), int(place[1])) if place else ("", 0)
    left = [one for one in found.differences if (one[0].order_id, one[1]) > after]
    page = left[:page_size]
    response = reconciliation_pb2.ReconcileOrdersResponse(
        total=_as_counts(found.total),
        by_payment_method=_as_rows(found.by_payment_method),
        by_browser=_as_rows(found.by_browser),
        by_consent=_as_rows(found.by_consent),
        money=[
            reconciliation_pb2.ReconciledMoney(
                currency=currency,
                listed=as_amount(found.listed_money.get(currency, 0)),
                told=as_amount(found.told_money.get(currency, 0)),
            )
            for currency in sorted(found.listed_money.keys() | found.told_money.keys())
        ],
        differences=[_as_difference(order, difference) for order, difference in page],
    )
    if len(page) < len(left):
        last, difference = page[-1]
        response.next_page_token = page_tokens.seal(request, [last.order_id, int(difference)])
    return response


def _read_list(
    request: reconciliation_pb2.ReconcileOrdersRequest, violations: dict[str, str]
) -> list[ListedOrder]:
    """The orders of the list; notes what can't be read of it as violations."""
    reader = _READERS.get(request.format)
    if reader is None:
        violations["format"] = "is required, and must be CSV or NDJSON"
        return []
    if len(request.content) > MOST_BYTES or len(request.content.encode()) > MOST_BYTES:
        violations["content"] = f"must be at most {MOST_BYTES} bytes"
        return []
    try:
        return reader(request.content)
    except ListNotReadable as error:
        violations |= error.faults
        return []


def _as_counts(counts: Counts) -> reconciliation_pb2.ReconciliationCounts:
    return reconciliation_pb2.ReconciliationCounts(
        listed_count=counts.listed,
        told_count=counts.told,
        equal_count=counts.equal,
        missing_count=counts.differing[Difference.MISSING],
        extra_count=counts.differing[Difference.EXTRA],
        doubled_count=counts.differing[Difference.DOUBLED],
        wrong_amount_count=counts.differing[Difference.WRONG_AMOUNT],
    )


def _as_rows(by_value: Mapping[str, Counts]) -> list[reconciliation_pb2.ReconciliationRow]:
    ranked = sorted(by_value.items(), key=lambda row: (-max(row[1].listed, row[1].told), row[0]))
    return [
        reconciliation_pb2.ReconciliationRow(value=value, counts=_as_counts(counts))
        for value, counts in ranked[:_MOST_ROWS]
    ]


def _as_difference(
    order: ComparedOrder, difference: Difference
) -> reconciliation_pb2.OrderDifference:
    listed, told = order.listed, order.told
    return reconciliation_pb2.OrderDifference(
        order_id=order.order_id,
        kind=difference.value,  # type: ignore[arg-type]  # the same numbers
        listed=(
            report_pb2.Money(currency=order.listed_currency, amount=as_amount(listed.amount))
            if listed
            else None
        ),
        told=(
            report_pb2.Money(currency=told.currency, amount=as_amount(told.gross)) if told else None
        ),
        listed_times=order.listed_times,
        told_times=told.told_count if told else 0,
        complete_time=as_timestamp(told.time) if told else None,
        payment_method=order.payment_method,
        browser=order.browser,
        consent=order.consent,
    )
