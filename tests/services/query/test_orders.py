"""The order ledger, as pure code: who is believed, and what an order comes to."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest

from common.digest import digest_of
from services.query.orders import (
    Entry,
    Order,
    Telling,
    Trust,
    entries_of,
    lines_of,
    read_statement,
)
from tests.services.query.fake_ingest import NOON

COMPLETED, UPDATED, REFUNDED, CANCELLED = Telling
CLAIMED, CONFIRMED = Trust

Told = tuple[Telling, int, Trust, dict[str, Any]]


def order_of(*told: Told) -> Order:
    order = Order()
    for telling, minute, trust, properties in told:
        order.add(
            telling,
            read_statement(
                properties,
                time=NOON + timedelta(minutes=minute),
                mark=digest_of(f"{telling} {minute} {trust} {properties}"),
                trust=trust,
            ),
        )
    return order


def amounts_of(*told: Told) -> list[tuple[Telling, int]]:
    """What each entry comes to, in the sequence of the ledger: the same however it is told."""
    found = [entries_of(order_of(*shuffled)) for shuffled in permutations(told)]
    assert all(entries == found[0] for entries in found)
    return [(entry.telling, entry.amount) for entry in found[0]]


def total(amount: float | str, **others: Any) -> dict[str, Any]:
    return {"total": str(amount), "currency": "EUR", **others}


def test_an_order_told_of_by_two_tabs_counts_once_when_it_was_first_told_of() -> None:
    order = order_of(
        (COMPLETED, 9, CLAIMED, total(20)),
        (COMPLETED, 5, CLAIMED, total(20)),
        (COMPLETED, 7, CLAIMED, total(20)),
    )

    assert entries_of(order) == [
        Entry(COMPLETED, NOON + timedelta(minutes=5), "EUR", CLAIMED, 200_000)
    ]


def test_the_shops_server_goes_before_the_browser_whichever_is_first() -> None:
    told: tuple[Told, ...] = (
        (COMPLETED, 1, CLAIMED, total("9999.99")),
        (COMPLETED, 4, CONFIRMED, total("20.00")),
        (UPDATED, 5, CLAIMED, total("1.00")),
    )

    assert amounts_of(*told) == [(COMPLETED, 200_000)]
    assert entries_of(order_of(*told))[0].trust is CONFIRMED


def test_the_latest_update_that_names_an_amount_says_what_an_order_is_worth() -> None:
    assert amounts_of(
        (COMPLETED, 1, CLAIMED, total(20)),
        (UPDATED, 3, CLAIMED, total(18)),
        (UPDATED, 2, CLAIMED, total(19)),
        (UPDATED, 4, CLAIMED, {"currency": "EUR"}),
    ) == [(COMPLETED, 180_000)]


def test_refunds_take_no_more_than_the_order_brought() -> None:
    assert amounts_of(
        (COMPLETED, 1, CLAIMED, total(20)),
        (REFUNDED, 3, CLAIMED, total(15)),
        (REFUNDED, 2, CLAIMED, total(15)),
    ) == [(COMPLETED, 200_000), (REFUNDED, 150_000), (REFUNDED, 50_000)]


def test_a_refund_with_an_id_counts_once() -> None:
    assert amounts_of(
        (COMPLETED, 1, CLAIMED, total(20)),
        (REFUNDED, 3, CLAIMED, total(5, refund_id="r")),
        (REFUNDED, 2, CLAIMED, total(5, refund_id="r")),
        (REFUNDED, 4, CLAIMED, total(5)),
    ) == [(COMPLETED, 200_000), (REFUNDED, 50_000), (REFUNDED, 50_000)]


def test_a_refund_that_names_no_amount_takes_all_that_is_left() -> None:
    assert amounts_of(
        (COMPLETED, 1, CLAIMED, total(20)),
        (REFUNDED, 2, CLAIMED, total(5)),
        (REFUNDED, 3, CLAIMED, {}),
        (CANCELLED, 4, CLAIMED, total(20)),
    ) == [(COMPLETED, 200_000), (REFUNDED, 50_000), (REFUNDED, 150_000), (CANCELLED, 0)]


def test_nothing_is_taken_from_an_order_that_nobody_completed() -> None:
    assert amounts_of((REFUNDED, 1, CLAIMED, total(5)), (CANCELLED, 2, CLAIMED, {})) == []


def test_a_refund_that_is_told_of_before_the_sale_happens_with_it() -> None:
    order = order_of((REFUNDED, 1, CLAIMED, total(5)), (COMPLETED, 6, CLAIMED, total(20)))

    assert [entry.time for entry in entries_of(order)] == [NOON + timedelta(minutes=6)] * 2


def test_products_of_a_cancelled_order_are_not_bought() -> None:
    products = [{"product_id": "tea", "price": "2.50", "quantity": "2"}]
    sale: Told = (COMPLETED, 1, CLAIMED, {"products": products})

    assert [line.revenue for line in lines_of(order_of(sale))] == [50_000]
    assert lines_of(order_of(sale, (CANCELLED, 2, CLAIMED, {}))) == ()


@pytest.mark.parametrize(
    ("properties", "amount"),
    [
        ({"total": 0.1}, None),  # Binary fractions never get here: the decoder makes decimals.
        ({"total": "0.1"}, 1_000),
        ({"total": " 12.345678 "}, 123_457),
        ({"total": "0.00005"}, 0),
        ({"revenue": 7}, 70_000),
        ({"value": "7"}, 70_000),
        ({"total": True, "revenue": "1"}, 10_000),
        ({"total": "-1", "revenue": "1"}, 10_000),
        ({"total": "NaN"}, None),
        ({"total": "1e11"}, None),
        ({"total": "10000000000"}, 10**14),
        ({"products": [{"sku": "a", "price": 3, "quantity": 2}, {"sku": "b", "price": 1}]}, 70_000),
        ({}, None),
    ],
)
def test_the_amount_is_the_first_that_is_one(
    properties: dict[str, Any], amount: int | None
) -> None:
    statement = read_statement(properties, time=NOON, mark=b"", trust=CLAIMED)

    assert statement.amount == amount


def test_no_more_refunds_are_kept_than_fit_whatever_the_sequence() -> None:
    told: list[Told] = [(REFUNDED, minute, CLAIMED, total(1)) for minute in range(600)]

    forwards, backwards = order_of(*told), order_of(*reversed(told))

    assert forwards == backwards
    assert len(forwards.refunded[CLAIMED]) == 500
