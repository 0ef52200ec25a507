"""What a backup brings back is what was saved, less everybody who was erased since."""

from __future__ import annotations

import random
import stat
import zipfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from common.db import open_database
from common.migrate import upgrade
from deploy.backup import ORDER, RestoreError, restore, save
from deploy.local.mariadb import MariadbServer
from shoptrail.ingest.v1 import event_pb2
from tests.conftest import Serving
from tests.privacy.conftest import open_shop
from tests.privacy.desk import ERASE, Desk
from tests.privacy.shop import PLANTED, Shop, event, of_ada, of_somebody, planted_in

SUPPRESSED = event_pb2.VERDICT_SUPPRESSED


def urls_in(directory: Path) -> dict[str, str]:
    directory.mkdir(exist_ok=True)
    return {service: f"sqlite+aiosqlite:///{directory / f'{service}.db'}" for service in ORDER}


@pytest.fixture
async def urls(request: pytest.FixtureRequest, shop: Shop, tmp_path: Path) -> Mapping[str, str]:
    """Where the shop's databases are, for who may change tables."""
    if shop.databases["ingest"].is_sqlite:
        await upgrade("keys", f"sqlite+aiosqlite:///{tmp_path / 'keys.db'}")
        return urls_in(tmp_path)
    server: MariadbServer = request.getfixturevalue("mariadb_server")
    return {service: server.migration_url(service) for service in ORDER}


async def test_who_was_erased_since_is_erased_again_when_a_backup_is_restored(
    shop: Shop, desk: Desk, urls: Mapping[str, str], serving: Serving, tmp_path: Path
) -> None:
    chance = random.Random(10)  # noqa: S311 - nothing secret
    await shop.send(event("identify", userId="ada-4711", anonymousId="phone-4711"))
    await shop.send(*(of_ada(chance) for _ in range(60)), *(of_somebody(chance) for _ in range(40)))
    await shop.send(b'{"type": "track", "userId": "ada-4711"}')
    await shop.all_followed()
    old, new = tmp_path / "old.backup", tmp_path / "new.backup"
    saved = await save(urls, old)
    assert saved.row_counts["ingest.events"] == 101
    assert stat.S_IMODE(old.stat().st_mode) == 0o600
    with zipfile.ZipFile(old) as archive:
        assert b"ada-4711" in archive.read("ingest/events")
    await desk.done(ERASE, user_id="ada-4711")
    await save(urls, new)

    elsewhere = urls_in(tmp_path / "restored")
    restored = await restore(elsewhere, old, subject_key=bytes(32), later=[new])

    assert restored.row_counts == saved.row_counts
    assert restored.erased_again == 62
    async with AsyncExitStack() as stack:
        opened = {}
        for service in ("ingest", "query", "maintenance"):
            opened[service] = open_database(elsewhere[service])
            stack.push_async_callback(opened[service].dispose)
        again = await stack.enter_async_context(
            open_shop(opened, serving, tmp_path / "restored.duckdb")
        )
        again.store_uid = shop.store_uid
        await again.all_followed()
        assert await planted_in(again, *PLANTED) == []
        assert await again.send(of_ada(chance)) == [SUPPRESSED]
        before, live = await again.rebuilt()
        assert live == before + 1


async def test_the_database_that_is_replaced_tells_who_was_erased(
    shop: Shop, desk: Desk, urls: Mapping[str, str], tmp_path: Path
) -> None:
    await shop.send(event("track", event="Met", userId="ada-4711"))
    await shop.all_followed()
    old, new = tmp_path / "old.backup", tmp_path / "new.backup"
    await save(urls, old)
    await desk.done(ERASE, user_id="ada-4711")
    await save(urls, new)
    target = urls_in(tmp_path / "target")
    assert (await restore(target, new, subject_key=bytes(32))).erased_again == 0

    assert (await restore(target, old, subject_key=bytes(32))).erased_again == 1


async def test_a_backup_of_another_version_is_refused(
    shop: Shop, urls: Mapping[str, str], tmp_path: Path
) -> None:
    path, other = tmp_path / "shop.backup", tmp_path / "other.backup"
    await save(urls, path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(other, "w") as altered:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "manifest.json":
                content = content.replace(b'"keys": "', b'"keys": "9')
            altered.writestr(name, content)

    with pytest.raises(RestoreError, match="keys is at revision"):
        await restore(urls_in(tmp_path / "target"), other, subject_key=bytes(32))
