"""Events are kept as long as their store says; what was worked out of them stays for good."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import grpc
import pytest
from sqlalchemy import select

from services.ingest.jobs import ingest_jobs
from services.ingest.subjects import SubjectDigests
from services.ingest.tables import events
from services.query.tables import orders, visits
from shoptrail.ingest.v1 import ingest_pb2, retention_pb2
from tests.conftest import NOBODY, key_metadata
from tests.privacy.desk import ERASE, Desk
from tests.privacy.shop import NOW, PLANTED, Shop, event, of_ada, of_somebody, planted_in
from tests.privacy.test_erased_figures import figures_of


async def put_rule(shop: Shop, days: int, event_name: str = "") -> None:
    await shop.gateway.PutRetentionRule(
        ingest_pb2.PutRetentionRuleRequest(
            store_uid=shop.store_uid, days=days, event_name=event_name
        ),
        timeout=5,
        metadata=key_metadata("settings:write", store_uid=shop.store_uid),
    )


async def preview(shop: Shop, **rule: Any) -> dict[str, int]:
    request = ingest_pb2.PreviewRetentionRequest(store_uid=shop.store_uid)
    if rule:
        request.rule.CopyFrom(retention_pb2.RetentionRule(**rule))
    answer = await shop.gateway.PreviewRetention(
        request, timeout=5, metadata=key_metadata("settings:read", store_uid=shop.store_uid)
    )
    assert answer.complete
    return {one.event_name: one.due_count for one in answer.due}


async def expire(shop: Shop, *, now: datetime) -> int:
    """All batches of the job; returns how many events expired."""
    jobs = ingest_jobs(SubjectDigests(bytes(32)), NOBODY)
    (job,) = (one for one in jobs if one.name == "expire-events")
    count, cursor = 0, ""
    while True:
        async with shop.databases["ingest"].begin() as transaction:
            done = await job.run_batch(transaction, cursor=cursor, now=now)
        count, cursor = count + done.row_count, done.cursor
        if done.done:
            return count


async def kept(shop: Shop) -> dict[str, int]:
    """How many events of each name have a person."""
    found: dict[str, int] = {}
    async with shop.databases["ingest"].read() as snapshot:
        for name, user_id in await snapshot.execute(select(events.c.name, events.c.user_id)):
            found[name] = found.get(name, 0) + bool(user_id)
    return found


async def test_events_expire_by_the_rule_for_their_name_and_no_sooner(shop: Shop) -> None:
    await shop.send(
        *(event("track", event=name, userId="u1") for name in ["Met"] * 250 + ["Seen"] * 3),
        event("page", name="Home", userId="u1"),
    )
    assert await expire(shop, now=NOW + timedelta(days=9000)) == 0
    await put_rule(shop, 30)
    await put_rule(shop, 10, "Met")
    await put_rule(shop, 0, "page")

    assert await expire(shop, now=NOW + timedelta(days=9)) == 0
    assert await expire(shop, now=NOW + timedelta(days=11)) == 250
    assert await kept(shop) == {"Met": 0, "Seen": 3, "Home": 1}
    assert await expire(shop, now=NOW + timedelta(days=31)) == 3
    assert await expire(shop, now=NOW + timedelta(days=400)) == 0
    assert await kept(shop) == {"Met": 0, "Seen": 0, "Home": 1}

    await put_rule(shop, 30, "page")
    assert await expire(shop, now=NOW + timedelta(days=400)) == 1


async def test_what_would_go_is_told_and_nothing_goes(shop: Shop) -> None:
    old = ingest_pb2.AppendRequest()
    submission = old.submissions.add(
        store_uid=shop.store_uid, payloads=[event("track", event="Met", userId="u1")]
    )
    submission.receive_time.FromDatetime(NOW - timedelta(days=20))
    await shop.gateway.Append(old, timeout=5)
    await shop.send(event("track", event="Met", userId="u1"))

    assert await preview(shop) == {}
    assert await preview(shop, days=10) == {"Met": 1}
    assert await preview(shop, days=10, event_name="Seen") == {}
    await put_rule(shop, 15)
    assert await preview(shop) == {"Met": 1}
    assert await preview(shop, days=25, event_name="Met") == {}
    assert await kept(shop) == {"Met": 2}


async def test_reports_stay_and_a_rebuild_carries_over_what_the_log_has_no_more(
    shop: Shop,
) -> None:
    chance = random.Random(9)  # noqa: S311 - nothing secret
    await shop.send(event("identify", userId="ada-4711", anonymousId="phone-4711"))
    await shop.send(
        *(of_ada(chance) for _ in range(120)), *(of_somebody(chance) for _ in range(80))
    )
    await shop.all_followed()
    await put_rule(shop, 30, "Order Completed")
    await put_rule(shop, 20)
    before = await figures_of(shop, 1)

    expired = await expire(shop, now=NOW + timedelta(days=21))
    await shop.all_followed()
    # Some orders' events are kept, and name another order now.
    assert 0 < expired < 201
    half = await figures_of(shop, 1)
    differing = {name for name in before if half[name] != before[name]}
    assert differing == {"orders"}
    old, new = await shop.rebuilt()
    assert (old, new) == (1, 2)
    assert await figures_of(shop, 2) == half

    await expire(shop, now=NOW + timedelta(days=31))
    await shop.send(*(of_somebody(chance) for _ in range(20)))
    await shop.all_followed()
    amended = await figures_of(shop, 2)
    old, new = await shop.rebuilt()
    assert await figures_of(shop, new) == amended
    assert set(await planted_in(shop, *PLANTED)) <= {
        # What reports break down by stays; of the events themselves nothing is left.
        *("query.tallies.name", "query.tally_days.name", "query.session_days.value"),
        *("query.sessions.session", "query.sessions.campaign", "query.sessions.referrer"),
        *("query.sessions.entry_page", "query.sessions.exit_page"),
    }


async def test_who_is_erased_after_their_events_expired_leaves_no_visit(
    shop: Shop, desk: Desk
) -> None:
    await shop.send(
        event("identify", userId="ada", anonymousId="phone"),
        event("page", name="Home", userId="ada", anonymousId="phone"),
    )
    await shop.all_followed()
    await put_rule(shop, 2)
    assert await expire(shop, now=NOW + timedelta(days=3)) == 2
    await shop.send(event("identify", userId="ada", anonymousId="phone"))
    await shop.all_followed()

    await desk.done(ERASE, user_id="ada")

    async with shop.databases["query"].read() as snapshot:
        assert not (await snapshot.execute(select(visits))).all()
        assert not (await snapshot.execute(select(orders))).all()


@pytest.mark.parametrize("days", [-1, 1, 3651])
async def test_days_out_of_their_range_are_refused(shop: Shop, days: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await put_rule(shop, days)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await preview(shop, days=days)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_rules_are_listed_and_replaced_by_name(shop: Shop) -> None:
    await put_rule(shop, 30)
    await put_rule(shop, 10, "Met")
    await put_rule(shop, 40)

    answer = await shop.gateway.ListRetentionRules(
        ingest_pb2.ListRetentionRulesRequest(store_uid=shop.store_uid),
        timeout=5,
        metadata=key_metadata("settings:read", store_uid=shop.store_uid),
    )

    assert [(rule.event_name, rule.days) for rule in answer.rules] == [("", 40), ("Met", 10)]
