"""Serves `shoptrail.maintenance.v1.Privacy`: opens privacy cases, and shows how far they are."""

from __future__ import annotations

from datetime import datetime

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from common.db import Database, database_now
from common.errors import InvalidRequest, NotFound
from common.interceptors.wrap import Context
from common.page_token import PageTokens, read_page_size
from common.uid import is_uid, new_uid
from services.maintenance import repository
from services.maintenance.caseworker import Caseworker
from services.maintenance.receipts import SIGNATURE_BYTES, ReceiptSigner, as_base64url
from services.maintenance.repository import Kind, State, StoredCase
from services.maintenance.subject import GivenId, SubjectSeal
from shoptrail.maintenance.v1 import privacy_pb2, privacy_pb2_grpc
from shoptrail.privacy.v1 import subject_pb2

SERVICE = privacy_pb2.DESCRIPTOR.services_by_name["Privacy"].full_name

_LONGEST_ID = 255
_PAGE_SIZE, _LARGEST_PAGE_SIZE = 50, 500


class PrivacyServicer(privacy_pb2_grpc.PrivacyServicer):
    """Checks a request, then writes a case down or reads it. The caseworker does the work."""

    def __init__(
        self,
        database: Database,
        *,
        caseworker: Caseworker,
        seal: SubjectSeal,
        signer: ReceiptSigner,
        page_tokens: PageTokens,
    ) -> None:
        self._database = database
        self._caseworker = caseworker
        self._seal = seal
        self._signer = signer
        self._page_tokens = page_tokens

    async def CreateCase(
        self, request: privacy_pb2.CreateCaseRequest, context: Context
    ) -> privacy_pb2.CreateCaseResponse:
        given = _read_order(request)
        uid = new_uid("case")
        async with self._database.begin() as transaction:
            await repository.add_case(
                transaction,
                uid=uid,
                store_uid=request.store_uid,
                kind=Kind(request.kind),
                subject_hash=self._seal.hash_of(request.store_uid, given),
                sealed_subject=self._seal.seal(uid, given.subject()),
                now=await database_now(transaction),
            )
            case = await repository.find_case(transaction, request.store_uid, uid)
        self._caseworker.tell()
        return privacy_pb2.CreateCaseResponse(case=self._as_message(case) if case else None)

    async def GetCase(
        self, request: privacy_pb2.GetCaseRequest, context: Context
    ) -> privacy_pb2.GetCaseResponse:
        async with self._database.read() as snapshot:
            case = await repository.find_case(
                snapshot, _check_store(request.store_uid), request.case_uid
            )
        return privacy_pb2.GetCaseResponse(case=self._as_message(_found(case, request.case_uid)))

    async def ListCases(
        self, request: privacy_pb2.ListCasesRequest, context: Context
    ) -> privacy_pb2.ListCasesResponse:
        _check_store(request.store_uid)
        if request.state and request.state not in set(map(int, State)):
            raise InvalidRequest({"state": "must be PENDING, RUNNING, DONE or FAILED"})
        page_size = read_page_size(
            request.page_size, default=_PAGE_SIZE, largest=_LARGEST_PAGE_SIZE
        )
        place = self._page_tokens.open(request)
        async with self._database.read() as snapshot:
            cases = await repository.list_cases(
                snapshot,
                request.store_uid,
                state=request.state,
                before_id=int(place[0]) if place else None,
                limit=page_size + 1,
            )
        response = privacy_pb2.ListCasesResponse(
            cases=[self._as_message(case, with_receipt=False) for case in cases[:page_size]]
        )
        if len(cases) > page_size:
            response.next_page_token = self._page_tokens.seal(request, [cases[page_size - 1].id])
        return response

    async def GetArchivePart(
        self, request: privacy_pb2.GetArchivePartRequest, context: Context
    ) -> privacy_pb2.GetArchivePartResponse:
        store_uid = _check_store(request.store_uid)
        async with self._database.read() as snapshot:
            case = _found(
                await repository.find_case(snapshot, store_uid, request.case_uid),
                request.case_uid,
            )
            # While it is being made, or made again, parts may not fit together.
            is_made = 0 <= request.part < case.archive_part_count
            content = (
                await repository.get_archive_part(snapshot, case, request.part) if is_made else b""
            )
        if not content:
            raise NotFound("There is no such part of an archive.", {"uid": request.case_uid[:64]})
        return privacy_pb2.GetArchivePartResponse(
            content=content, part_count=case.archive_part_count
        )

    async def ListReceiptKeys(
        self, request: privacy_pb2.ListReceiptKeysRequest, context: Context
    ) -> privacy_pb2.ListReceiptKeysResponse:
        return privacy_pb2.ListReceiptKeysResponse(key_set=self._signer.key_set())

    def _as_message(self, case: StoredCase, *, with_receipt: bool = True) -> privacy_pb2.Case:
        message = privacy_pb2.Case(
            uid=case.uid,
            store_uid=case.store_uid,
            kind=case.kind,  # type: ignore[arg-type]  # the same numbers
            state=case.state,  # type: ignore[arg-type]
            subject_hash=case.subject_hash.hex(),
            create_time=_as_timestamp(case.create_time),
            suppress_time=_as_timestamp(case.suppress_time),
            end_time=_as_timestamp(case.end_time),
            id_count=case.id_count,
            counts=[
                subject_pb2.TableCount(table=table, row_count=count)
                for table, count in sorted(msgspec.json.decode(case.counts).items())
            ],
            failure=case.failure,
            attempt_count=case.attempt_count,
            archive_part_count=case.archive_part_count,
        )
        if with_receipt and case.receipt:
            message.receipt.CopyFrom(
                privacy_pb2.Receipt(
                    content=case.receipt[SIGNATURE_BYTES:].decode(),
                    signature=as_base64url(case.receipt[:SIGNATURE_BYTES]),
                    key_id=self._signer.key_id,
                )
            )
        return message


def _read_order(request: privacy_pb2.CreateCaseRequest) -> GivenId:
    """The id that is given; raises `InvalidRequest` naming everything wrong at once."""
    violations: dict[str, str] = {}
    if not is_uid("sto", request.store_uid):
        violations["store_uid"] = "is not the uid of a store"
    if request.kind not in set(map(int, Kind)):
        violations["kind"] = "must be ERASE, SUPPRESS, UNSUPPRESS or EXPORT"
    given = [
        GivenId(kind, text)
        for kind in ("user_id", "anonymous_id", "email")
        if (text := getattr(request, kind))
    ]
    if len(given) != 1:
        violations["user_id"] = "must be given, or anonymous_id, or email, and no two of them"
    for one in given:
        if len(one.text) > _LONGEST_ID:
            violations[one.kind] = f"may have {_LONGEST_ID} characters"
    if violations:
        raise InvalidRequest(violations)
    return given[0]


def _check_store(store_uid: str) -> str:
    if not is_uid("sto", store_uid):
        raise InvalidRequest({"store_uid": "is not the uid of a store"})
    return store_uid


def _found(case: StoredCase | None, uid: str) -> StoredCase:
    if case is None:
        raise NotFound("There is no such case.", {"uid": uid[:64]})
    return case


def _as_timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message
