"""What a backup brings back is what was saved, less everybody who was erased since."""

from __future__ import annotations

import random
import stat
import zipfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from common.db import open_database
from common.migrate import upgrade
from common.uid import new_uid
from deploy.backup import ORDER, RestoreError, restore, save
from deploy.local.mariadb import MariadbServer
from services.ingest.remnants import orders_in
from services.ingest.tables import events
from services.keys import repository as keys
from services.keys.key_text import Kind
from services.query.identities import anonymous_subject, user_subject
from services.query.tables import owners, visits
from services.query.tables import sessions as sessions_table
from shoptrail.ingest.v1 import event_pb2
from tests.conftest import Serving, empty
from tests.privacy.conftest import open_shop
from tests.privacy.desk import ERASE, Desk
from tests.privacy.shop import NOW, PLANTED, Shop, event, of_ada, of_somebody, planted_in
from tests.privacy.test_erased_figures import figures_of
from tests.privacy.test_retention import expire, put_rule

SUPPRESSED = event_pb2.VERDICT_SUPPRESSED
KEY = bytes(32)
KEYS = {"ingest": KEY, "maintenance": KEY}


@dataclass(frozen=True, slots=True)
class Backup:
    path: Path
    keys: Path
    row_counts: dict[str, int] = field(default_factory=dict)


def urls_in(directory: Path) -> dict[str, str]:
    directory.mkdir(exist_ok=True)
    return {service: f"sqlite+aiosqlite:///{directory / f'{service}.db'}" for service in ORDER}


@pytest.fixture
async def urls(
    request: pytest.FixtureRequest, shop: Shop, tmp_path: Path
) -> AsyncIterator[Mapping[str, str]]:
    """Where the shop's databases are, for who may change tables."""
    if shop.databases["ingest"].is_sqlite:
        await upgrade("keys", f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}")
        yield urls_in(tmp_path)
        return
    server: MariadbServer = request.getfixturevalue("mariadb_server")
    yield {service: server.migration_url(service) for service in ORDER}
    await empty(server, "keys")  # The others are the shop's to leave as it found them.


async def _save(urls: Mapping[str, str], directory: Path, name: str) -> Backup:
    backup = Backup(directory / f"{name}.backup", directory / f"{name}.keys")
    saved = await save(urls, backup.path, keys=backup.keys, subject_key=KEY)
    for path in (backup.path, backup.keys):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return replace(backup, row_counts=saved.row_counts)


@asynccontextmanager
async def reopened(
    shop: Shop, urls: Mapping[str, str], serving: Serving, columns: Path
) -> AsyncIterator[Shop]:
    """The shop, as it was restored there."""
    async with AsyncExitStack() as stack:
        opened = {}
        for service in ("ingest", "query", "maintenance"):
            opened[service] = open_database(urls[service])
            stack.push_async_callback(opened[service].dispose)
        again = await stack.enter_async_context(open_shop(opened, serving, columns))
        again.store_uid = shop.store_uid
        await again.all_followed()
        yield again


async def events_of(shop: Shop, *, without: str = "") -> list[tuple[Any, ...]]:
    """The rows of the log, all columns, but those that have a text."""
    async with shop.databases["ingest"].read() as snapshot:
        rows = [tuple(row) for row in await snapshot.execute(select(events).order_by(events.c.id))]
    return [row for row in rows if not without or without not in str(row)]


async def fill(shop: Shop) -> None:
    """Somebody's and others' events, of some orders both tell; and some that were refused."""
    chance = random.Random(10)  # noqa: S311 - nothing secret
    await shop.send(event("identify", userId="ada-4711", anonymousId="phone-4711"))
    await shop.send(*(of_ada(chance) for _ in range(60)), *(of_somebody(chance) for _ in range(40)))
    await shop.send(b'{"type": "track", "userId": "ada-4711"}', b'{"type": "track", "userId": "u"}')
    told = {"order_id": "planted-order-4711-3", "total": 2, "currency": "EUR"}
    await shop.send(event("track", event="Order Refunded", userId="clerk", properties=told))
    await shop.all_followed()


async def test_a_backup_can_not_be_read_of_who_was_erased_since_and_of_others_is_whole(
    shop: Shop, desk: Desk, urls: Mapping[str, str], serving: Serving, tmp_path: Path
) -> None:
    await fill(shop)
    before = await events_of(shop, without="4711")
    figures = await figures_of(shop, 1)
    old = await _save(urls, tmp_path, "old")
    assert old.row_counts["ingest.events"] == 102
    assert "query.recorded_events" not in old.row_counts
    with zipfile.ZipFile(old.path) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            assert not [one for one in PLANTED if one.encode() in content], name
    case = await desk.done(ERASE, user_id="ada-4711")
    assert {one.table: one.row_count for one in case.counts}["maintenance.subject_keys"] == 2
    new = await _save(urls, tmp_path, "new")
    elsewhere = urls_in(tmp_path / "restored")

    # Nobody tells that somebody was erased: there is no key any more, and that is all.
    restored = await restore(elsewhere, old.path, subject_keys=KEYS, keys=new.keys)

    assert restored.unreadable == 62
    assert restored.erased_again == 0
    assert restored.row_counts["ingest.events"] == 102
    assert restored.row_counts["ingest.rejected_events"] == 1
    async with reopened(shop, elsewhere, serving, tmp_path / "restored.duckdb") as again:
        assert await planted_in(again, *PLANTED) == []
        assert await events_of(again, without="erased") == [
            row for row in before if "erased" not in str(row)
        ]
        now = await figures_of(again, 1)
        for name in ("revenue", "product_sales"):
            assert now[name] == figures[name]
        async with again.databases["ingest"].read() as snapshot:
            told = (await snapshot.execute(select(events.c.user_id, events.c.payload))).all()
        (of_clerk,) = (orders_in(payload) for user_id, payload in told if user_id == "clerk")
        of_nobody = {orders_in(payload).get("order") for user_id, payload in told if not user_id}
        assert of_clerk["order"] in of_nobody


async def test_who_was_erased_since_is_erased_again_with_a_key_that_somebody_kept(
    shop: Shop, desk: Desk, urls: Mapping[str, str], serving: Serving, tmp_path: Path
) -> None:
    await fill(shop)
    old = await _save(urls, tmp_path, "old")
    await desk.done(ERASE, user_id="ada-4711")
    new = await _save(urls, tmp_path, "new")
    elsewhere = urls_in(tmp_path / "restored")

    restored = await restore(
        elsewhere, old.path, subject_keys=KEYS, keys=old.keys, later=[new.path]
    )

    assert restored.unreadable == 0
    assert restored.erased_again == 62
    async with reopened(shop, elsewhere, serving, tmp_path / "restored.duckdb") as again:
        assert await planted_in(again, *PLANTED) == []
        assert await again.send(of_ada(random.Random(1))) == [SUPPRESSED]  # noqa: S311
        before, live = await again.rebuilt()
        assert live == before + 1


async def test_the_database_that_is_replaced_has_the_keys_and_tells_who_was_erased(
    shop: Shop, desk: Desk, urls: Mapping[str, str], tmp_path: Path
) -> None:
    await shop.send(
        event("track", event="Met", userId="ada-4711"),
        event("track", event="Met", userId="grace"),
    )
    await shop.all_followed()
    old = await _save(urls, tmp_path, "old")
    await desk.done(ERASE, user_id="ada-4711")
    new = await _save(urls, tmp_path, "new")
    target = urls_in(tmp_path / "target")
    first = await restore(target, new.path, subject_keys=KEYS, keys=new.keys)
    assert (first.unreadable, first.erased_again) == (0, 0)

    again = await restore(target, old.path, subject_keys=KEYS)

    assert (again.unreadable, again.erased_again) == (1, 0)


async def test_what_is_restored_takes_the_place_of_stores_that_have_keys(
    shop: Shop, urls: Mapping[str, str], tmp_path: Path
) -> None:
    database = open_database(urls["keys"])
    new = keys.NewKey(new_uid("key"), Kind.SECRET, "", "sk_…", 1, bytes(32), ["reports:read"])
    async with database.begin() as transaction:
        store = await keys.add_store(transaction, display_name="Tea", now=NOW)
        await keys.add_key(transaction, new, store_id=store.id, now=NOW)
    saved = await _save(urls, tmp_path, "shop")

    await restore(urls, saved.path, subject_keys=KEYS, keys=saved.keys)

    async with database.read() as snapshot:
        found = await keys.find_working_key_by_uid(snapshot, new.uid, now=NOW)
    await database.dispose()
    assert found is not None
    assert found.store_uid == store.uid


async def test_without_any_key_nothing_is_restored(
    shop: Shop, urls: Mapping[str, str], tmp_path: Path
) -> None:
    await shop.send(event("track", event="Met", userId="grace"))
    saved = await _save(urls, tmp_path, "shop")

    with pytest.raises(RestoreError, match="no key"):
        await restore(urls_in(tmp_path / "target"), saved.path, subject_keys=KEYS)


async def test_figures_of_what_expired_are_restored_and_their_people_sealed(
    shop: Shop, desk: Desk, urls: Mapping[str, str], serving: Serving, tmp_path: Path
) -> None:
    await fill(shop)
    await put_rule(shop, 2)
    assert await expire(shop, now=NOW + timedelta(days=3)) == 102
    await shop.all_followed()
    figures = await figures_of(shop, 1)
    saved = await _save(urls, tmp_path, "shop")
    with zipfile.ZipFile(saved.path) as archive:
        sessions = archive.read("query/sessions")
    assert saved.row_counts["query.sessions"] > 1
    assert b"planted words" not in sessions
    assert anonymous_subject("phone-4711") not in sessions
    elsewhere = urls_in(tmp_path / "restored")

    restored = await restore(elsewhere, saved.path, subject_keys=KEYS, keys=saved.keys)

    assert restored.row_counts == saved.row_counts
    async with reopened(shop, elsewhere, serving, tmp_path / "restored.duckdb") as again:
        assert await figures_of(again, 1) == figures
    await shop.send(event("identify", userId="ada-4711", anonymousId="phone-4711"))
    await shop.all_followed()
    await desk.done(ERASE, user_id="ada-4711")
    new = await _save(urls, tmp_path, "new")
    there = urls_in(tmp_path / "there")
    await restore(there, saved.path, subject_keys=KEYS, keys=new.keys)
    async with reopened(shop, there, serving, tmp_path / "there.duckdb") as again:
        for table in (visits, sessions_table, owners):
            async with again.databases["query"].read() as snapshot:
                rows = str([tuple(row) for row in await snapshot.execute(select(table))])
            assert str(user_subject("ada-4711")) not in rows
            assert str(anonymous_subject("phone-4711")) not in rows


async def test_a_backup_of_another_version_is_refused(
    shop: Shop, urls: Mapping[str, str], tmp_path: Path
) -> None:
    path, other = (await _save(urls, tmp_path, "shop")).path, tmp_path / "other.backup"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(other, "w") as altered:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "manifest.json":
                content = content.replace(b'"keys": "', b'"keys": "9')
            altered.writestr(name, content)

    with pytest.raises(RestoreError, match="keys is at revision"):
        await restore(urls_in(tmp_path / "target"), other, subject_keys=KEYS)
