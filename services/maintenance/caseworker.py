"""Works on privacy cases until every service has confirmed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import grpc
import msgspec
from prometheus_client import Gauge

from common.db import Database, database_now
from common.log import describe_failure
from services.maintenance import repository
from services.maintenance.archive import Archive
from services.maintenance.receipts import ReceiptSigner
from services.maintenance.repository import Kind, State, StoredCase, TakenOver
from services.maintenance.subject import SubjectKeyNames, SubjectSeal
from shoptrail.ingest.v1 import ingest_pb2, ingest_pb2_grpc
from shoptrail.privacy.v1 import subject_pb2
from shoptrail.privacy.v1.subject_pb2 import Subject
from shoptrail.query.v1 import query_pb2, query_pb2_grpc

log = logging.getLogger(__name__)

INGEST = ingest_pb2.DESCRIPTOR.services_by_name["Ingest"].full_name
QUERY = query_pb2.DESCRIPTOR.services_by_name["Query"].full_name
"""Whom it calls."""

_UNFINISHED = Gauge("privacy_case_seconds", "How long the case at work has been open.")

_CALL_SECONDS = 20.0
# Longer than any step takes between two notes of how far it is.
_LEASE = timedelta(seconds=90)
_AGAIN_WHEN_AWAY = timedelta(seconds=3)
_AGAIN_WHEN_REFUSED = timedelta(minutes=5)
_MOST_ROUNDS = 20
_AWAY = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


@dataclass(frozen=True, slots=True)
class Services:
    """Who keeps something of people."""

    ingest: ingest_pb2_grpc.IngestAsyncStub
    query: query_pb2_grpc.QueryAsyncStub


class Caseworker:
    """Takes the case that is due first, on whichever replica, and works on it.

    What it does may be done twice: a case that a process left in its midst is taken over when
    its lease has ended, and gone through again. Whoever has lost a case can't write to it.
    """

    def __init__(
        self,
        database: Database,
        services: Services,
        *,
        seal: SubjectSeal,
        key_names: SubjectKeyNames,
        signer: ReceiptSigner,
        pause_seconds: float = 1.0,
    ) -> None:
        self._database = database
        self._services = services
        self._seal = seal
        self._key_names = key_names
        self._signer = signer
        self._pause_seconds = pause_seconds
        self._opened = asyncio.Event()

    def tell(self) -> None:
        """A case was opened here, and need not wait."""
        self._opened.set()

    async def run(self) -> None:
        """Work on cases until cancelled. A failure is logged, and noted with the case."""
        while True:
            try:
                worked = await self.work_on_next()
            except Exception as error:
                log.warning("privacy cases not worked on", extra=describe_failure(error))
                worked = False
            if not worked:
                self._opened.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause_seconds):
                        await self._opened.wait()

    async def work_on_next(self) -> bool:
        """Work on the case that is due first; returns whether there was one."""
        async with self._database.begin() as transaction:
            now = await database_now(transaction)
            case = await repository.claim_case(transaction, now=now, lease=_LEASE)
        if case is None:
            _UNFINISHED.set(0)
            return False
        _UNFINISHED.set((now - case.create_time).total_seconds())
        work = _Work(
            self._database,
            self._services,
            case,
            seal=self._seal,
            key_names=self._key_names,
            signer=self._signer,
        )
        try:
            await work.do()
        except TakenOver:
            log.warning("privacy case was taken over", extra={"case_uid": case.uid})
        except Exception as error:
            away = isinstance(error, grpc.aio.AioRpcError) and error.code() in _AWAY
            code = error.code().name if isinstance(error, grpc.aio.AioRpcError) else "INTERNAL"
            log.log(
                logging.WARNING if away else logging.ERROR,
                "privacy case not finished",
                # Of a failed call its code alone, since texts may repeat what was sent.
                extra={"case_uid": case.uid, "code": code}
                | ({} if isinstance(error, grpc.aio.AioRpcError) else describe_failure(error)),
            )
            with suppress(TakenOver):
                await work.put_off(
                    _AGAIN_WHEN_AWAY if away else _AGAIN_WHEN_REFUSED,
                    state=State.RUNNING if away else State.FAILED,
                    failure=code,
                )
        return True


class _Work:
    """The work on one case."""

    def __init__(
        self,
        database: Database,
        services: Services,
        case: StoredCase,
        *,
        seal: SubjectSeal,
        key_names: SubjectKeyNames,
        signer: ReceiptSigner,
    ) -> None:
        self._database = database
        self._ingest = services.ingest
        self._query = services.query
        self._seal = seal
        self._key_names = key_names
        self._signer = signer
        self._case = case

    async def do(self) -> None:
        """Do all that the case asks for."""
        if self._case.kind == Kind.ERASE:
            await self._erase()
        elif self._case.kind == Kind.SUPPRESS:
            await self._suppress()
            await self._end(sealed_subject=None)
        elif self._case.kind == Kind.UNSUPPRESS:
            await self._ingest.SuppressSubject(
                ingest_pb2.SuppressSubjectRequest(
                    store_uid=self._case.store_uid, subject=await self._resolve(), lifted=True
                ),
                timeout=_CALL_SECONDS,
            )
            await self._end(sealed_subject=None)
        else:
            await self._export()

    async def put_off(self, time: timedelta, *, state: State, failure: str) -> None:
        """Let it be tried again after a time."""
        async with self._database.begin() as transaction:
            now = await database_now(transaction)
            await repository.save_case(
                transaction, self._case, lease_time=now + time, state=state, failure=failure
            )

    async def _save(self, **values: Any) -> datetime:
        """Note how far the case is; returns the database's time."""
        async with self._database.begin() as transaction:
            now = await database_now(transaction)
            self._case = await repository.save_case(
                transaction, self._case, lease_time=now + _LEASE, **values
            )
        return now

    async def _end(self, **values: Any) -> None:
        async with self._database.begin() as transaction:
            now = await database_now(transaction)
            await repository.save_case(
                transaction,
                self._case,
                lease_time=now,
                state=State.DONE,
                failure="",
                end_time=self._case.end_time or now,
                **values,
            )
        log.info("privacy case done", extra={"case_uid": self._case.uid})

    def _subject(self) -> Subject:
        sealed = self._case.sealed_subject
        if sealed is None:
            raise LookupError("a case at work has no subject")
        return self._seal.open(self._case.uid, sealed)

    async def _resolve(self) -> Subject:
        """All ids of the person, noted with the case: once erased, nothing leads to them."""
        known = self._subject()
        answer = await self._ingest.ResolveSubject(
            ingest_pb2.ResolveSubjectRequest(store_uid=self._case.store_uid, subject=known),
            timeout=_CALL_SECONDS,
        )
        found = answer.subject
        if found != known:
            await self._save(
                sealed_subject=self._seal.seal(self._case.uid, found),
                id_count=_id_count(found),
            )
        elif not self._case.id_count:
            await self._save(id_count=_id_count(found))
        return found

    async def _suppress(self) -> Subject:
        """Keep the person's events out, by all ids; those too that came to light meanwhile."""
        for _ in range(_MOST_ROUNDS):
            subject = await self._resolve()
            answer = await self._ingest.SuppressSubject(
                ingest_pb2.SuppressSubjectRequest(store_uid=self._case.store_uid, subject=subject),
                timeout=_CALL_SECONDS,
            )
            if not answer.changed_count and self._case.suppress_time:
                return subject
            if self._case.suppress_time is None:
                async with self._database.read() as snapshot:
                    now = await database_now(snapshot)
                await self._save(suppress_time=now)
        raise RuntimeError("a person's ids grow faster than they can be kept out")

    async def _erase(self) -> None:
        subject = await self._suppress()
        store_uid = self._case.store_uid
        counts: Counter[str] = Counter(msgspec.json.decode(self._case.counts))
        if not counts:
            found = await self._query.CountSubject(
                query_pb2.CountSubjectRequest(store_uid=store_uid, subject=subject),
                timeout=_CALL_SECONDS,
            )
            counts.update(_as_counts(found.found))
        archives = await self._forget_archives(subject)
        if archives:
            counts["maintenance.archive_parts"] += archives
        changes: Iterable[subject_pb2.ShardChange] = ()
        while True:
            erased = await self._ingest.EraseSubject(
                ingest_pb2.EraseSubjectRequest(store_uid=store_uid, subject=subject),
                timeout=_CALL_SECONDS,
            )
            counts.update(_as_counts(erased.erased))
            await self._save(counts=msgspec.json.encode(counts))
            if erased.done:
                changes = erased.changes
                break
        while True:
            followed = await self._query.EraseSubject(
                query_pb2.EraseSubjectRequest(
                    store_uid=store_uid, subject=subject, changes=changes
                ),
                timeout=_CALL_SECONDS,
            )
            await self._save()
            if followed.done:
                break
            if followed.left:
                # It has followed, and something is there all the same: that heals by no waiting.
                raise RuntimeError("something is left in the read models")
        async with self._database.begin() as transaction:
            # What backups hold of the person can't be read from now on.
            count = await repository.destroy_subject_keys(
                transaction, store_uid, self._key_names.of_subject(store_uid, subject)
            )
        if count:
            counts["maintenance.subject_keys"] += count
        now = await self._save(counts=msgspec.json.encode(counts))
        self._case = replace(self._case, end_time=now)
        receipt = self._signer.sign(self._receipt(counts, verify_time=now))
        await self._end(
            sealed_subject=None,
            receipt=receipt.signature + receipt.content,
            counts=msgspec.json.encode(counts),
        )

    def _receipt(self, counts: Counter[str], *, verify_time: datetime) -> dict[str, object]:
        case = self._case
        return {
            "kind": "erasure",
            "case_uid": case.uid,
            "store_uid": case.store_uid,
            "subject_hash": case.subject_hash.hex(),
            "id_count": case.id_count,
            "create_time": case.create_time,
            "suppress_time": case.suppress_time,
            "verify_time": verify_time,
            "erased": dict(sorted(counts.items())),
            "left": 0,
        }

    async def _forget_archives(self, subject: Subject) -> int:
        """Remove archives of this person that were exported before; returns how many parts."""
        ids = _ids_of(subject)
        count = 0
        async with self._database.begin() as transaction:
            for other in await repository.list_archived(transaction, self._case.store_uid):
                if other.sealed_subject is None:
                    continue
                if ids & _ids_of(self._seal.open(other.uid, other.sealed_subject)):
                    count += await repository.close_archive(transaction, other.id)
        return count

    async def _export(self) -> None:
        subject = await self._resolve()
        with Archive() as archive:
            async for part in self._exported(subject):
                archive.add_rows(part.name, part.rows)
            ids = {
                "user_ids": list(subject.user_ids),
                "anonymous_ids": list(subject.anonymous_ids),
                "emails": list(subject.emails),
            }
            now = await self._save()
            part_count = 0
            for content in archive.finish(ids, time=now.isoformat(timespec="seconds")):
                async with self._database.begin() as transaction:
                    await repository.put_archive_part(transaction, self._case, part_count, content)
                part_count += 1
                await self._save()
            counts = {f"exported.{name}": count for name, count in archive.counts.items()}
        await self._end(
            archive_part_count=part_count, counts=msgspec.json.encode(dict(sorted(counts.items())))
        )

    async def _exported(self, subject: Subject) -> AsyncIterator[subject_pb2.SubjectRows]:
        store_uid = self._case.store_uid
        noted = time.monotonic()
        token = ""
        while True:
            page = await self._ingest.ExportSubject(
                ingest_pb2.ExportSubjectRequest(
                    store_uid=store_uid, subject=subject, page_token=token
                ),
                timeout=_CALL_SECONDS,
            )
            for part in page.parts:
                yield part
            token = page.next_page_token
            if time.monotonic() - noted > 10:
                await self._save()
                noted = time.monotonic()
            if not token:
                break
        while True:
            worked_out = await self._query.ExportSubject(
                query_pb2.ExportSubjectRequest(
                    store_uid=store_uid, subject=subject, page_token=token
                ),
                timeout=_CALL_SECONDS,
            )
            for part in worked_out.parts:
                yield part
            token = worked_out.next_page_token
            if not token:
                break


def _as_counts(found: Iterable[subject_pb2.TableCount]) -> dict[str, int]:
    return {one.table: one.row_count for one in found}


def _id_count(subject: Subject) -> int:
    return len(subject.user_ids) + len(subject.anonymous_ids) + len(subject.emails)


def _ids_of(subject: Subject) -> set[tuple[str, str]]:
    return {
        (kind, one)
        for kind in ("user_ids", "anonymous_ids", "emails")
        for one in getattr(subject, kind)
    }
