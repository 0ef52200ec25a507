"""Events are accepted while the database is away, and stored once and in order when it is back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from common.db import Database, open_database
from common.page_token import PageTokens
from deploy.local.mariadb import MariadbServer
from services.ingest.heads import make_heads
from services.ingest.journal import Journal
from services.ingest.journals import Journals, open_journals
from services.ingest.servicer import SERVICE, IngestServicer
from services.ingest.tables import journal_cursors, metadata
from shoptrail.ingest.v1 import ingest_pb2, ingest_pb2_grpc
from tests.conftest import Connect, Serving
from tests.drills.proxy import Proxy, proxied
from tests.services.ingest.conftest import (
    ACCEPTED,
    ALL,
    DUPLICATE,
    NOW,
    REJECTED,
    STORE,
    batch,
    read_all,
    sums_of,
    verdicts,
    viewed,
)

SHARDS = 4
JOURNAL_BYTES = 1024 * 1024
# The first call after the database went away waits for it: for rules and for the log.
PATIENCE_SECONDS, FIRST_SECONDS = 0.5, 2.0
# More than a transaction takes, whatever else the machine does.
LONG_SECONDS = 4.0


@dataclass(slots=True)
class Running:
    """An Ingest with a journal, and the network between it and its database."""

    connect: Connect
    proxy: Proxy
    journals: Journals

    @property
    def stub(self) -> ingest_pb2_grpc.IngestAsyncStub:
        return ingest_pb2_grpc.IngestStub(self.connect("gateway"))

    async def send(self, *payloads: bytes, seconds: float = 5) -> list[int]:
        return verdicts(await self.stub.Append(batch(*payloads), timeout=seconds))

    async def stored(self, count: int) -> list[str]:
        """The message ids in the log, in its order, once there are so many."""
        log = ingest_pb2_grpc.IngestStub(self.connect("query"))
        async with asyncio.timeout(20):
            while True:
                try:
                    found = await read_all(log)
                except grpc.aio.AioRpcError:
                    found = []  # The database is only just coming back.
                if len(found) >= count:
                    return [event.message_id for event in found]
                await asyncio.sleep(0.02)

    async def drained(self) -> None:
        """Return once all events go to the log again."""
        async with asyncio.timeout(20):
            while any(writer.away for writer in self.journals.writers):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)


@pytest.fixture
async def network(mariadb_server: MariadbServer) -> AsyncIterator[Proxy]:
    async with proxied(mariadb_server.port) as proxy:
        yield proxy
        database = open_database(mariadb_server.migration_url("ingest"))
        async with database.begin() as transaction:
            for table in reversed(metadata.sorted_tables):
                await transaction.execute(table.delete())
        await database.dispose()


class Start:
    """Starts Ingest, with the journals in a directory."""

    def __init__(
        self, server: MariadbServer, proxy: Proxy, serving: Serving, directory: Path
    ) -> None:
        self._url = server.url("ingest").replace(f":{server.port}/", f":{proxy.port}/")
        self._proxy = proxy
        self._serving = serving
        self.directory = directory

    @asynccontextmanager
    async def __call__(
        self, *, byte_count: int = JOURNAL_BYTES, patience_seconds: float = LONG_SECONDS
    ) -> AsyncIterator[Running]:
        async with AsyncExitStack() as stack:
            database: Database = open_database(self._url)
            stack.push_async_callback(database.dispose)
            journals = await stack.enter_async_context(
                open_journals(
                    self.directory,
                    byte_count=byte_count,
                    shard_count=SHARDS,
                    microseconds=lambda: time.time_ns() // 1000,
                    patience_seconds=patience_seconds,
                )
            )
            servicer = IngestServicer(
                database,
                now=lambda: NOW,
                shard_count=SHARDS,
                event_bytes=32 * 1024,
                page_tokens=PageTokens(bytes(32)),
                journals=journals,
            )
            heads = asyncio.create_task(make_heads(database, shard_count=SHARDS))
            stack.callback(heads.cancel)
            connect = await stack.enter_async_context(
                self._serving(
                    [SERVICE],
                    lambda server: ingest_pb2_grpc.add_IngestServicer_to_server(servicer, server),
                )
            )
            yield Running(connect, self._proxy, journals)


@pytest.fixture
def start(mariadb_server: MariadbServer, network: Proxy, serving: Serving, tmp_path: Path) -> Start:
    return Start(mariadb_server, network, serving, tmp_path / "journal")


@pytest.fixture
async def ingest(start: Start) -> AsyncIterator[Running]:
    async with start() as running:
        assert await running.send(viewed("first")) == [ACCEPTED]
        yield running


async def test_a_database_that_refuses_costs_no_event(ingest: Running) -> None:
    await ingest.proxy.refuse()
    sent = [f"m{number}" for number in range(30)]
    for message_id in sent:
        assert await ingest.send(viewed(message_id)) == [ACCEPTED]
    await ingest.proxy.heal()

    assert await ingest.stored(31) == ["first", *sent]
    await ingest.drained()
    assert await ingest.send(viewed("last"), viewed("m3")) == [ACCEPTED, DUPLICATE]
    sums = await sums_of(ingest.stub)
    assert (sums.accepted_count, sums.duplicate_count, sums.received_count) == (32, 1, 33)


async def test_a_database_that_is_silent_delays_one_call_and_no_more(start: Start) -> None:
    async with start(patience_seconds=PATIENCE_SECONDS) as ingest:
        assert await ingest.send(viewed("first")) == [ACCEPTED]
        ingest.proxy.black_hole()
        waits = []
        for number in range(20):
            began = time.monotonic()
            assert await ingest.send(viewed(f"m{number}")) == [ACCEPTED]
            waits.append(time.monotonic() - began)
        await ingest.proxy.heal()

        assert waits[0] < FIRST_SECONDS
        assert sorted(waits)[-2] < PATIENCE_SECONDS
        assert (await ingest.stored(21))[1:] == [f"m{number}" for number in range(20)]


async def test_what_was_committed_without_our_hearing_of_it_is_counted_once(
    ingest: Running,
) -> None:
    ingest.proxy.swallow_commits = 1
    assert await ingest.send(viewed("m1"), b"{}") == [ACCEPTED, REJECTED]
    await ingest.drained()

    assert ingest.proxy.swallowed_count == 1
    assert await ingest.stored(2) == ["first", "m1"]
    sums = await sums_of(ingest.stub)
    assert (
        sums.accepted_count,
        sums.rejected_count,
        sums.duplicate_count,
        sums.received_count,
    ) == (2, 1, 0, 3)


async def test_only_rejected_events_are_counted_once_too(ingest: Running) -> None:
    ingest.proxy.swallow_commits = 1
    assert await ingest.send(b"{}", b"[]") == [REJECTED, REJECTED]
    await ingest.drained()

    sums = await sums_of(ingest.stub)
    assert (sums.rejected_count, sums.received_count) == (2, 3)


async def test_a_commit_of_nothing_new_is_asked_for_again(ingest: Running) -> None:
    ingest.proxy.swallow_commits = 1

    # Refused, and repeated by the caller's channel, as each call of Append may be.
    assert await ingest.send(viewed("first")) == [DUPLICATE]
    assert ingest.proxy.swallowed_count == 1
    assert await ingest.stored(1) == ["first"]


async def test_what_was_accepted_twice_is_stored_once_and_the_balance_says_so(
    ingest: Running,
) -> None:
    await ingest.proxy.refuse()
    assert await ingest.send(viewed("first"), viewed("m1")) == [ACCEPTED, ACCEPTED]
    assert await ingest.send(viewed("m1"), b"{}") == [ACCEPTED, REJECTED]
    await ingest.proxy.heal()

    assert await ingest.stored(2) == ["first", "m1"]
    await ingest.drained()
    sums = await sums_of(ingest.stub)
    assert (
        sums.accepted_count,
        sums.duplicate_count,
        sums.rejected_count,
        sums.received_count,
    ) == (2, 2, 1, 5)
    request = ingest_pb2.ListRejectedEventsRequest(store_uid=STORE)
    listed = await ingest.stub.ListRejectedEvents(request, timeout=5, metadata=ALL)
    assert len(listed.rejected_events) == 1


async def test_a_journal_that_is_full_refuses_and_loses_nothing(start: Start) -> None:
    async with start(byte_count=20_000) as ingest:
        assert await ingest.send(viewed("first")) == [ACCEPTED]
        await ingest.proxy.refuse()
        accepted = []
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            for number in range(100):
                assert await ingest.send(viewed(f"m{number}", note="x" * 300)) == [ACCEPTED]
                accepted.append(f"m{number}")
        await ingest.proxy.heal()

        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert 10 < len(accepted) < 100
        assert await ingest.stored(len(accepted) + 1) == ["first", *accepted]
        await ingest.drained()
        assert await ingest.send(viewed("last")) == [ACCEPTED]


async def test_what_a_process_left_behind_the_next_one_stores(start: Start) -> None:
    async with start() as ingest:
        assert await ingest.send(viewed("first")) == [ACCEPTED]
        await ingest.proxy.refuse()
        assert await ingest.send(viewed("m1"), viewed("m2")) == [ACCEPTED, ACCEPTED]
    async with start() as ingest:
        assert await ingest.send(viewed("m3")) == [ACCEPTED]
        await ingest.proxy.heal()

        assert await ingest.stored(4) == ["first", "m1", "m2", "m3"]


async def test_what_was_drained_but_not_yet_forgotten_is_drained_once(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as killed:
        async with start() as ingest:
            assert await ingest.send(viewed("first")) == [ACCEPTED]
            await ingest.proxy.refuse()
            sent = await ingest.send(viewed("m1"), b"{}", viewed("first"))
            killed.setattr(Journal, "forget", fail)
            await ingest.proxy.heal()
            await ingest.stored(2)
    assert sent == [ACCEPTED, REJECTED, ACCEPTED]
    async with start() as ingest:
        await ingest.drained()
        sums = await sums_of(ingest.stub)

    assert (
        sums.accepted_count,
        sums.rejected_count,
        sums.duplicate_count,
        sums.received_count,
    ) == (2, 1, 1, 4)
    assert not list(start.directory.glob("*/*.journal"))


async def test_a_journal_that_is_empty_leaves_no_row_behind(
    ingest: Running, mariadb_server: MariadbServer
) -> None:
    await ingest.proxy.refuse()
    assert await ingest.send(viewed("m1")) == [ACCEPTED]
    await ingest.proxy.heal()
    await ingest.drained()

    database = open_database(mariadb_server.url("ingest"))
    async with asyncio.timeout(5):
        while True:
            async with database.read() as snapshot:
                if not (await snapshot.execute(journal_cursors.select())).all():
                    break
    await database.dispose()


async def test_ingest_starts_without_its_database(start: Start, network: Proxy) -> None:
    await network.refuse()
    async with start() as ingest:
        assert await ingest.send(viewed("m1")) == [ACCEPTED]
        await network.heal()

        assert await ingest.stored(1) == ["m1"]


async def test_no_address_is_stored_of_a_store_whose_rules_are_unknown(
    ingest: Running, mariadb_server: MariadbServer
) -> None:
    stranger = "sto_01h455vb4pex5vsknk084sn02q"
    await ingest.proxy.refuse()
    request = batch(viewed("m1", context={"ip": "203.0.113.77"}), store_uid=stranger)
    request.submissions[0].client_ip = "203.0.113.77"
    assert verdicts(await ingest.stub.Append(request, timeout=5)) == [ACCEPTED]
    kept = b"".join(path.read_bytes() for path in ingest.journals.directory.glob("*/*.journal"))
    await ingest.proxy.heal()
    await ingest.stored(2)

    assert b"Product Viewed" in kept
    assert b"203.0.113" not in kept


async def test_a_quota_holds_nothing_back_that_was_accepted(ingest: Running) -> None:
    put = ingest_pb2.PutStoreSettingsRequest(store_uid=STORE, daily_quota=3)
    await ingest.stub.PutStoreSettings(put, timeout=5, metadata=ALL)
    assert await ingest.send(viewed("m1")) == [ACCEPTED]
    await ingest.proxy.refuse()
    assert await ingest.send(viewed("m2"), viewed("m3"), viewed("m4")) == [ACCEPTED] * 3
    await ingest.proxy.heal()

    assert len(await ingest.stored(5)) == 5
    await ingest.drained()
    assert (await sums_of(ingest.stub)).accepted_count == 5


async def test_what_no_log_takes_is_set_aside_and_holds_up_nothing(start: Start) -> None:
    async with start() as ingest:
        assert await ingest.send(viewed("first")) == [ACCEPTED]
        await ingest.proxy.refuse()
        assert await ingest.send(viewed("m1")) == [ACCEPTED]
    (path,) = start.directory.glob("*/*.journal")
    journal = Journal(path.parent)
    journal.append([b"not a delivery"], microseconds=0)
    journal.close()
    async with start() as ingest:
        assert await ingest.send(viewed("m2")) == [ACCEPTED]
        await ingest.proxy.heal()

        assert await ingest.stored(3) == ["first", "m1", "m2"]
        await ingest.drained()
    (aside,) = (path.parent / "aside").iterdir()
    assert aside.read_bytes() == b"not a delivery"


async def test_readers_see_the_log_while_it_is_drained(ingest: Running) -> None:
    await ingest.proxy.refuse()
    for number in range(200):
        assert await ingest.send(viewed(f"m{number}")) == [ACCEPTED]
    await ingest.proxy.heal()
    log = ingest_pb2_grpc.IngestStub(ingest.connect("query"))
    positions: list[int] = []
    shard = next(number for number, writer in enumerate(ingest.journals.writers) if writer.away)
    async with asyncio.timeout(20):
        while len(positions) < 200:
            request = ingest_pb2.ReadLogRequest(
                shard=shard,
                after_position=positions[-1] if positions else 0,
                wait=Duration(seconds=1),
            )
            try:
                page = await log.ReadLog(request, timeout=5)
            except grpc.aio.AioRpcError:
                continue
            positions += [event.position for event in page.events]

    assert positions == list(range(1, len(positions) + 1))
