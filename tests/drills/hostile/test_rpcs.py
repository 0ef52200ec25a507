"""No request makes a service fail: it is served, or refused for a reason that we foresaw."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

from common.access import methods_of, path_of, rule_of
from common.cron.servicer import SERVICE as MAINTENANCE
from common.cron.servicer import CronServicer
from common.db import Database
from common.mutex import open_redis
from common.page_token import PageTokens
from gateway.transcoding import SERVICES
from services.ingest import servicer as ingest
from services.ingest.jobs import ingest_jobs
from services.ingest.repository import add_heads
from services.ingest.subjects import SubjectDigests
from services.keys import servicer as keys
from services.keys.jobs import all_jobs
from services.keys.peppers import Pepper
from services.maintenance import privacy
from services.maintenance.caseworker import Caseworker, Services
from services.maintenance.jobs import maintenance_jobs
from services.maintenance.receipts import ReceiptSigner
from services.maintenance.subject import SubjectKeyNames, SubjectSeal
from services.query import servicer as query
from services.query.duck import DuckColumns
from services.query.freshness import Sightings
from services.query.jobs import query_jobs
from shoptrail.ingest.v1 import ingest_pb2_grpc
from shoptrail.keys.v1 import api_key_pb2, keys_pb2, keys_pb2_grpc
from shoptrail.maintenance.v1 import maintenance_pb2_grpc, privacy_pb2_grpc
from shoptrail.query.v1 import query_pb2_grpc
from tests.conftest import NOBODY, Connect, Databases, Serving, key_metadata
from tests.drills.faults.drill import SEED
from tests.drills.figures import FULL
from tests.drills.hostile.mutations import Mutator

pytestmark = [
    pytest.mark.parametrize("databases", ["sqlite"], indirect=True),
    pytest.mark.timeout(1200),
]

REQUESTS = 100_000 if FULL else 4_000
AT_ONCE = 24
# Calls that wait for news are left waiting no longer than that.
CALL_SECONDS = 1.0
MEMORY_BYTES = 300 * 1024 * 1024
NEVER = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)


@pytest.fixture
async def mesh(
    databases: Databases, serving: Serving, redis_urls: Mapping[str, str]
) -> AsyncIterator[Mapping[str, Connect]]:
    """All services, as production has them, by their full names; Maintenance's is its own."""
    tokens = PageTokens(bytes(32))
    peppers = [Pepper(version=1, secret=bytes(32))]
    jobs = {
        "ingest": ingest_jobs(SubjectDigests(bytes(32)), NOBODY),
        "query": query_jobs(NOBODY),
        "keys": all_jobs(peppers),
        "maintenance": maintenance_jobs(NOBODY),
    }
    async with AsyncExitStack() as stack:
        connects: dict[str, Connect] = {}
        for name in ("ingest", "query", "keys", "maintenance"):
            database = await stack.enter_async_context(databases(name))
            redis = open_redis(redis_urls[name])
            stack.push_async_callback(redis.aclose)
            cron = CronServicer(
                name, database=database, redis=redis, jobs=jobs[name], page_tokens=tokens
            )
            columns = DuckColumns(None)
            stack.push_async_callback(columns.close)
            if name == "ingest":
                async with database.begin() as transaction:
                    await add_heads(transaction, shard_count=2)

            def register(
                server: grpc.aio.Server,
                name: str = name,
                database: Database = database,
                cron: CronServicer = cron,
                columns: DuckColumns = columns,
            ) -> None:
                maintenance_pb2_grpc.add_MaintenanceServicer_to_server(cron, server)
                if name == "ingest":
                    ingest_pb2_grpc.add_IngestServicer_to_server(
                        ingest.IngestServicer(
                            database,
                            now=lambda: datetime.now(UTC),
                            shard_count=2,
                            event_bytes=32 * 1024,
                            page_tokens=tokens,
                            subject_digests=SubjectDigests(bytes(32)),
                        ),
                        server,
                    )
                elif name == "query":
                    query_pb2_grpc.add_QueryServicer_to_server(
                        query.QueryServicer(
                            database,
                            sightings=Sightings(),
                            columns=columns,
                            page_tokens=tokens,
                            now=lambda: datetime.now(UTC),
                        ),
                        server,
                    )
                elif name == "keys":
                    keys_pb2_grpc.add_KeysServicer_to_server(
                        keys.KeysServicer(
                            database,
                            peppers=peppers,
                            page_tokens=tokens,
                            now=lambda: datetime.now(UTC),
                        ),
                        server,
                    )

                else:
                    add_privacy(server, database, connects, tokens)

            service = f"shoptrail.{name}.v1.{name.capitalize()}"
            beside = privacy.SERVICE if name == "maintenance" else MAINTENANCE
            connects[service] = await stack.enter_async_context(
                serving([service, beside], register)
            )
        connects[privacy.SERVICE] = connects[MAINTENANCE]
        yield connects


def add_privacy(
    server: grpc.aio.Server,
    database: Database,
    connects: Mapping[str, Connect],
    tokens: PageTokens,
) -> None:
    """Privacy's own RPCs. Nobody works on its cases meanwhile."""
    seal, signer = SubjectSeal(bytes(32)), ReceiptSigner(bytes(32), older_public_keys=())
    services = Services(
        ingest_pb2_grpc.IngestStub(connects[ingest.SERVICE]("maintenance")),
        query_pb2_grpc.QueryStub(connects[query.SERVICE]("maintenance")),
    )
    privacy_pb2_grpc.add_PrivacyServicer_to_server(
        privacy.PrivacyServicer(
            database,
            caseworker=Caseworker(
                database,
                services,
                seal=seal,
                key_names=SubjectKeyNames(bytes(32)),
                signer=signer,
            ),
            seal=seal,
            signer=signer,
            page_tokens=tokens,
        ),
        server,
    )


async def test_no_request_is_answered_with_unknown_or_internal(
    mesh: Mapping[str, Connect],
) -> None:
    operator = keys_pb2_grpc.KeysStub(mesh[keys.SERVICE]("operator"))
    store_uid = (
        await operator.CreateStore(keys_pb2.CreateStoreRequest(display_name="x"), timeout=5)
    ).store.uid
    key = await operator.CreateKey(
        keys_pb2.CreateKeyRequest(store_uid=store_uid, kind=api_key_pb2.KEY_KIND_SECRET), timeout=5
    )
    mutator = Mutator(
        SEED,
        known={
            "store_uid": [store_uid],
            "key_uid": [key.key.uid],
            "text": [key.text],
            "key_text": [key.text],
            "job": ["purge-deleted", "trim-runs", "trim-rejected-events"],
            "payloads": ['{"type":"track","event":"Paid","userId":"u","messageId":"m"}', "{", "7"],
        },
    )
    methods = [method for service in SERVICES for method in methods_of(service)]
    codes: Counter[str] = Counter()
    failures: list[str] = []
    left = REQUESTS

    async def bombard() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            method = mutator.choose(methods)
            wire = mutator.request(method)
            code = await call(mesh, mutator, method, wire, store_uid)
            codes[code.name] += 1
            if code in NEVER:
                failures.append(f"{method.full_name} {code.name}: {wire[:300].hex()}")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    await asyncio.gather(*(bombard() for _ in range(AT_ONCE)))

    assert not failures, "\n".join(sorted(failures)[:10])
    assert codes["OK"] > REQUESTS / 50, codes
    assert codes["INVALID_ARGUMENT"] > REQUESTS / 50, codes
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < MEMORY_BYTES
    # It lives.
    await operator.GetStore(keys_pb2.GetStoreRequest(store_uid=store_uid), timeout=5)


async def call(
    mesh: Mapping[str, Connect],
    mutator: Mutator,
    method: MethodDescriptor,
    wire: bytes,
    store_uid: str,
) -> grpc.StatusCode:
    """Send the bytes to the method as one who may call it; what came back."""
    rule = rule_of(method)
    caller = sorted(rule.callers)[len(wire) % len(rule.callers)]
    metadata = key_metadata(*rule.scopes, store_uid=store_uid) if caller == "gateway" else ()
    connect = mesh[method.containing_service.full_name]
    bound: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = connect(caller).unary_unary(
        path_of(method)
    )
    try:
        await bound(wire, timeout=CALL_SECONDS, metadata=mutator.metadata(metadata))
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK
