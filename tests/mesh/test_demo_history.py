"""The made-up history: the same whenever it is made up, and the reports know it to the cent."""

from __future__ import annotations

from datetime import date, timedelta

from deploy.local.demo_data import Store, figures_of, send_history, wait_for_figures
from deploy.local.demo_history import make_history
from deploy.local.gateway_client import GatewayClient
from tests.mesh.conftest import RunningMesh, Shop

UNTIL = date(2026, 11, 1)


def test_a_day_is_the_same_in_whichever_history_it_stands() -> None:
    week = make_history(until=UNTIL, days=7)
    later = make_history(until=UNTIL + timedelta(days=2), days=9)

    known = {event["messageId"]: event for event in later.events}
    assert len(known) == len(later.events)
    assert all(known[event["messageId"]] == event for event in week.events)
    times = [event["timestamp"] for event in later.events]
    assert times == sorted(times)
    assert times[-1] < "2026-11-03"


def test_it_is_believable() -> None:
    counts = make_history(until=UNTIL, days=90).totals.events

    funnel = ("page", "Product Viewed", "Product Added", "Checkout Started", "Order Completed")
    steps = [counts[name] for name in funnel]
    assert steps == sorted(steps, reverse=True)
    visits = 90 * 64
    assert 0.01 < counts["Order Completed"] / visits < 0.08
    assert 0 < counts["Order Refunded"] < counts["Order Completed"] / 8


async def test_the_reports_know_the_history_to_the_cent_however_often_it_is_sent(
    mesh: RunningMesh, shop: Shop
) -> None:
    days = 90 if mesh.announcement["database"] == "sqlite" else 7
    gateway = GatewayClient(mesh.url.removeprefix("http://"))
    store = Store(gateway, shop.store_uid, shop.secret_key)
    history = make_history(until=UNTIL, days=days)

    await send_history(store, history)
    assert await wait_for_figures(store, history) == figures_of(history)

    last_days = make_history(until=UNTIL, days=3)
    await send_history(store, last_days)
    longer = make_history(until=UNTIL + timedelta(days=1), days=days + 1)
    await send_history(store, longer)
    assert await wait_for_figures(store, longer) == figures_of(longer)
