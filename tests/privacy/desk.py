"""Where people ask about their data, and who works on what they ask."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import grpc

from common.db import Database
from services.maintenance.caseworker import Caseworker, Services
from services.maintenance.receipts import ReceiptSigner
from services.maintenance.subject import SubjectKeyNames, SubjectSeal
from shoptrail.ingest.v1 import ingest_pb2_grpc
from shoptrail.maintenance.v1 import privacy_pb2, privacy_pb2_grpc
from shoptrail.query.v1 import query_pb2_grpc
from tests.conftest import key_metadata
from tests.privacy.shop import Shop

ERASE, SUPPRESS = privacy_pb2.CASE_KIND_ERASE, privacy_pb2.CASE_KIND_SUPPRESS
UNSUPPRESS, EXPORT = privacy_pb2.CASE_KIND_UNSUPPRESS, privacy_pb2.CASE_KIND_EXPORT
RUNNING, DONE = privacy_pb2.CASE_STATE_RUNNING, privacy_pb2.CASE_STATE_DONE
FAILED = privacy_pb2.CASE_STATE_FAILED
SIGNER = ReceiptSigner(bytes(range(32)))


@dataclass
class Desk:
    """Where people ask, and who works on it."""

    shop: Shop
    database: Database
    stub: privacy_pb2_grpc.PrivacyAsyncStub
    caseworker: Caseworker

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return key_metadata("privacy:write", store_uid=self.shop.store_uid)

    async def ask(self, kind: privacy_pb2.CaseKind.ValueType, **ids: str) -> privacy_pb2.Case:
        request = privacy_pb2.CreateCaseRequest(store_uid=self.shop.store_uid, kind=kind, **ids)
        return (await self.stub.CreateCase(request, timeout=5, metadata=self.metadata())).case

    async def look(self, case: privacy_pb2.Case) -> privacy_pb2.Case:
        request = privacy_pb2.GetCaseRequest(store_uid=self.shop.store_uid, case_uid=case.uid)
        return (await self.stub.GetCase(request, timeout=5, metadata=self.metadata())).case

    async def done(self, kind: privacy_pb2.CaseKind.ValueType, **ids: str) -> privacy_pb2.Case:
        """The case when it is."""
        case = await self.ask(kind, **ids)
        async with asyncio.timeout(90):
            while case.state != DONE:
                assert case.state != FAILED, case
                await self.caseworker.work_on_next()
                case = await self.look(case)
        return case

    async def archive(self, case: privacy_pb2.Case) -> bytes:
        parts = []
        for part in range(case.archive_part_count):
            request = privacy_pb2.GetArchivePartRequest(
                store_uid=self.shop.store_uid, case_uid=case.uid, part=part
            )
            answer = await self.stub.GetArchivePart(request, timeout=5, metadata=self.metadata())
            parts.append(answer.content)
        return b"".join(parts)


def worker(database: Database, ingest: grpc.aio.Channel, query: grpc.aio.Channel) -> Caseworker:
    return Caseworker(
        database,
        Services(ingest_pb2_grpc.IngestStub(ingest), query_pb2_grpc.QueryStub(query)),
        seal=SubjectSeal(bytes(32)),
        key_names=SubjectKeyNames(bytes(32)),
        signer=SIGNER,
    )
