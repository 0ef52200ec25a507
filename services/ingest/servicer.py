"""Serves `shoptrail.ingest.v1.Ingest`: appends to the log, and reads from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from common.context import get_call
from common.db import Database
from common.errors import InvalidRequest
from common.interceptors.wrap import Context
from common.page_token import PageTokens, read_page_size
from services.ingest import repository, subject_repository
from services.ingest.intake import new_event, rejected_event
from services.ingest.journals import Journals
from services.ingest.log_writer import Delivery, LogWriter, Outcome
from services.ingest.messages import as_timestamp
from services.ingest.news import News
from services.ingest.outcomes import Outcomes
from services.ingest.patient_rules import PatientRules
from services.ingest.repository import LoggedEvent
from services.ingest.retention import RetentionAnswers
from services.ingest.rule_book import RuleBook
from services.ingest.rules import StoreRules
from services.ingest.shards import shard_of
from services.ingest.store_rules import StoreRulesAnswers, list_catalogue
from services.ingest.subject_answers import SubjectAnswers
from services.ingest.subjects import SubjectDigests
from services.ingest.submissions import Part, read_parts, write_answer
from services.ingest.suppressions import Suppressions
from services.ingest.verdicts import Rejection, Verdict, read_event
from shoptrail.ingest.v1 import event_pb2, ingest_pb2, ingest_pb2_grpc

SERVICE = ingest_pb2.DESCRIPTOR.services_by_name["Ingest"].full_name

_PAGE_BYTES = 4 * 1024 * 1024
_CHUNK_ROWS = 500
_LONGEST_WAIT_SECONDS = 20.0
# How soon a reader learns of what another replica appended.
_LOOK_AGAIN_SECONDS = 0.25
# Where one commit comes others follow: who waits for news reads them together.
_GATHER_SECONDS = 0.05
# Longer than a caller waits: what was too much for one transaction in its time is stored all
# the same, and found when the call is repeated. With a journal there is something better to do.
_LOG_SECONDS = 10.0


class IngestServicer(ingest_pb2_grpc.IngestServicer):
    """Gives each event its verdict, stores those that earn it, and lists them by position.

    `now` is asked for each call. An event that has more than `event_bytes` is rejected
    unless its sender has a limit of its own.
    """

    def __init__(
        self,
        database: Database,
        *,
        now: Callable[[], datetime],
        shard_count: int,
        event_bytes: int,
        page_tokens: PageTokens,
        subject_digests: SubjectDigests,
        journals: Journals | None = None,
    ) -> None:
        """With journals, events are accepted while the database is away."""
        self._database = database
        self._now = now
        self._shard_count = shard_count
        self._event_bytes = event_bytes
        self._news = News()
        suppressions = [Suppressions(shard, subject_digests) for shard in range(shard_count)]
        patience_seconds = journals.patience_seconds if journals else _LOG_SECONDS
        log_writers = [
            LogWriter(
                database,
                shard,
                self._news,
                suppressions[shard],
                patience_seconds=patience_seconds,
            )
            for shard in range(shard_count)
        ]
        self._writers = [journals.before(writer) if journals else writer for writer in log_writers]
        self._rule_book = RuleBook(database)
        self._rules = (
            PatientRules(self._rule_book, patience_seconds=patience_seconds / 2)
            if journals
            else self._rule_book
        )
        self._store_rules = StoreRulesAnswers(
            database, rule_book=self._rule_book, page_tokens=page_tokens
        )
        self._outcomes = Outcomes(
            database,
            rule_book=self._rule_book,
            page_tokens=page_tokens,
            news=self._news,
            shard_of=self._shard_of,
            suppressions=suppressions,
            event_bytes=event_bytes,
            now=now,
        )
        self._retention = RetentionAnswers(database, shard_of=self._shard_of, now=now)
        self._subjects = SubjectAnswers(
            database,
            digests=subject_digests,
            page_tokens=page_tokens,
            news=self._news,
            shard_of=self._shard_of,
            now=now,
        )

    async def Append(
        self, request: ingest_pb2.AppendRequest, context: Context
    ) -> ingest_pb2.AppendResponse:
        parts = read_parts(request)
        rules_of = await self._rules.rules_of({part.store_uid for part in parts})
        batches: dict[int, _Batch] = {}
        for part in parts:
            shard = self._shard_of(part.store)
            if shard not in batches:
                batches[shard] = _Batch()
            self._receive(part, rules_of[part.store_uid], into=batches[shard])

        outcomes = await asyncio.gather(
            *(self._writers[shard].append(batch.delivery) for shard, batch in batches.items()),
            return_exceptions=True,
        )
        for batch, outcome in zip(batches.values(), outcomes, strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            batch.settle(outcome)
        return write_answer(parts)

    def _receive(self, part: Part, rules: StoreRules, *, into: _Batch) -> None:
        """Read a submission's events, and say where their verdicts will go."""
        arrival = part.arrival
        if rules.daily_quota is not None:
            into.delivery.quotas[part.store] = rules.daily_quota
        for index, payload in enumerate(part.payloads):
            try:
                reading = read_event(payload, arrival, limit_bytes=self._event_bytes, rules=rules)
            except Rejection as fault:
                rejected = rejected_event(
                    payload, fault, store_uid=part.store_uid, arrival=arrival, rules=rules
                )
                into.delivery.rejected.append(rejected)
                into.rejected_places.append((part, index, fault))
                continue
            into.delivery.events.append(
                new_event(
                    reading, store=part.store, receive_time=arrival.receive_time, hour=part.hour
                )
            )
            into.event_places.append((part.verdicts, index))

    async def Record(
        self, request: ingest_pb2.RecordRequest, context: Context
    ) -> ingest_pb2.RecordResponse:
        key = get_call().key
        submission = ingest_pb2.Submission(
            store_uid=request.store_uid,
            receive_time=as_timestamp(self._now()),
            default_type=request.default_type,
            payloads=request.payloads,
            confirmed=key is None or not key.is_publishable,
        )
        if request.HasField("sent_time"):
            submission.sent_time.CopyFrom(request.sent_time)
        try:
            answer = await self.Append(ingest_pb2.AppendRequest(submissions=[submission]), context)
        except InvalidRequest as error:
            raise InvalidRequest(
                {
                    path.removeprefix("submissions[0].").replace("submissions", "payloads"): why
                    for path, why in error.violations.items()
                }
            ) from None
        return ingest_pb2.RecordResponse(result=answer.results[0])

    async def ReadLog(
        self, request: ingest_pb2.ReadLogRequest, context: Context
    ) -> ingest_pb2.ReadLogResponse:
        self._check_place(request)
        page_size = read_page_size(request.page_size, default=500, largest=5000)
        until = time.monotonic() + min(request.wait.seconds, _LONGEST_WAIT_SECONDS)
        while True:
            as_of_time = self._now()
            async with self._database.read() as snapshot:
                head = await repository.get_log_head(snapshot, request.shard)
            left = until - time.monotonic()
            if (
                head.position > request.after_position
                or head.change_number > request.after_change
                or left <= 0
            ):
                break
            await self._news.wait(request.shard, seconds=min(left, _LOOK_AGAIN_SECONDS))
            await asyncio.sleep(_GATHER_SECONDS)

        events, change_number = await self._read_page(
            request, head=head.position, page_size=page_size
        )
        return ingest_pb2.ReadLogResponse(
            events=events,
            head_position=head.position,
            as_of_time=as_timestamp(as_of_time),
            shard_count=self._shard_count,
            change_number=change_number,
        )

    async def ReadChanges(
        self, request: ingest_pb2.ReadChangesRequest, context: Context
    ) -> ingest_pb2.ReadChangesResponse:
        if not 0 <= request.shard < self._shard_count:
            raise InvalidRequest({"shard": f"must be from 0 to {self._shard_count - 1}"})
        page_size = read_page_size(request.page_size, default=200, largest=1000)
        async with self._database.read() as snapshot:
            head = await repository.get_log_head(snapshot, request.shard)
            changes = await subject_repository.list_changes(
                snapshot, request.shard, after=request.after_number, limit=page_size
            )
            events = {
                event.position: event
                for event in await repository.get_events(
                    snapshot, request.shard, [place for _, place in changes]
                )
            }
        response = ingest_pb2.ReadChangesResponse(change_number=head.change_number)
        size = 0
        for number, position in changes:
            event = events[position]
            size += len(event.payload) + len(event.enrichment or b"")
            if response.changes and size > _PAGE_BYTES:
                break
            response.changes.add(number=number, event=_as_message(event))
        return response

    async def ResolveSubject(
        self, request: ingest_pb2.ResolveSubjectRequest, context: Context
    ) -> ingest_pb2.ResolveSubjectResponse:
        return await self._subjects.resolve(request)

    async def SuppressSubject(
        self, request: ingest_pb2.SuppressSubjectRequest, context: Context
    ) -> ingest_pb2.SuppressSubjectResponse:
        return await self._subjects.suppress(request)

    async def EraseSubject(
        self, request: ingest_pb2.EraseSubjectRequest, context: Context
    ) -> ingest_pb2.EraseSubjectResponse:
        return await self._subjects.erase(request)

    async def ExportSubject(
        self, request: ingest_pb2.ExportSubjectRequest, context: Context
    ) -> ingest_pb2.ExportSubjectResponse:
        return await self._subjects.export(request)

    async def GetReceipts(
        self, request: ingest_pb2.GetReceiptsRequest, context: Context
    ) -> ingest_pb2.GetReceiptsResponse:
        return await self._outcomes.get_receipts(request)

    async def SumVerdicts(
        self, request: ingest_pb2.SumVerdictsRequest, context: Context
    ) -> ingest_pb2.SumVerdictsResponse:
        return await self._outcomes.sum_verdicts(request)

    async def ListRejectedEvents(
        self, request: ingest_pb2.ListRejectedEventsRequest, context: Context
    ) -> ingest_pb2.ListRejectedEventsResponse:
        return await self._outcomes.list_rejected(request)

    async def CountRejectedEvents(
        self, request: ingest_pb2.CountRejectedEventsRequest, context: Context
    ) -> ingest_pb2.CountRejectedEventsResponse:
        return await self._outcomes.count_rejected(request)

    async def FixRejectedEvents(
        self, request: ingest_pb2.FixRejectedEventsRequest, context: Context
    ) -> ingest_pb2.FixRejectedEventsResponse:
        return await self._outcomes.fix_rejected(request)

    async def ReplayRejectedEvents(
        self, request: ingest_pb2.ReplayRejectedEventsRequest, context: Context
    ) -> ingest_pb2.ReplayRejectedEventsResponse:
        return await self._outcomes.replay_rejected(request)

    async def GetStoreSettings(
        self, request: ingest_pb2.GetStoreSettingsRequest, context: Context
    ) -> ingest_pb2.GetStoreSettingsResponse:
        return await self._store_rules.get_settings(request)

    async def PutStoreSettings(
        self, request: ingest_pb2.PutStoreSettingsRequest, context: Context
    ) -> ingest_pb2.PutStoreSettingsResponse:
        return await self._store_rules.put_settings(request)

    async def PutTrackingPlan(
        self, request: ingest_pb2.PutTrackingPlanRequest, context: Context
    ) -> ingest_pb2.PutTrackingPlanResponse:
        return await self._store_rules.put_plan(request)

    async def GetTrackingPlan(
        self, request: ingest_pb2.GetTrackingPlanRequest, context: Context
    ) -> ingest_pb2.GetTrackingPlanResponse:
        return await self._store_rules.get_plan(request)

    async def ListTrackingPlans(
        self, request: ingest_pb2.ListTrackingPlansRequest, context: Context
    ) -> ingest_pb2.ListTrackingPlansResponse:
        return await self._store_rules.list_plans(request)

    async def DeleteTrackingPlan(
        self, request: ingest_pb2.DeleteTrackingPlanRequest, context: Context
    ) -> ingest_pb2.DeleteTrackingPlanResponse:
        return await self._store_rules.delete_plan(request)

    async def UndeleteTrackingPlan(
        self, request: ingest_pb2.UndeleteTrackingPlanRequest, context: Context
    ) -> ingest_pb2.UndeleteTrackingPlanResponse:
        return await self._store_rules.undelete_plan(request)

    async def PutRetentionRule(
        self, request: ingest_pb2.PutRetentionRuleRequest, context: Context
    ) -> ingest_pb2.PutRetentionRuleResponse:
        return await self._retention.put_rule(request)

    async def ListRetentionRules(
        self, request: ingest_pb2.ListRetentionRulesRequest, context: Context
    ) -> ingest_pb2.ListRetentionRulesResponse:
        return await self._retention.list_rules(request)

    async def PreviewRetention(
        self, request: ingest_pb2.PreviewRetentionRequest, context: Context
    ) -> ingest_pb2.PreviewRetentionResponse:
        return await self._retention.preview(request)

    async def ListCatalogue(
        self, request: ingest_pb2.ListCatalogueRequest, context: Context
    ) -> ingest_pb2.ListCatalogueResponse:
        return list_catalogue()

    async def _read_page(
        self, request: ingest_pb2.ReadLogRequest, *, head: int, page_size: int
    ) -> tuple[list[event_pb2.Event], int]:
        """The events after the request's position, as many as fit a page.

        Beside them, the number of the last change, of the same snapshot.
        """
        page: list[event_pb2.Event] = []
        size = 0
        after = request.after_position
        async with self._database.read() as snapshot:
            change_number = (await repository.get_log_head(snapshot, request.shard)).change_number
            while after < head and len(page) < page_size and size < _PAGE_BYTES:
                limit = min(_CHUNK_ROWS, page_size - len(page), head - after)
                chunk = await repository.list_events(
                    snapshot, request.shard, after=after, limit=limit
                )
                if not chunk:
                    break
                for event in chunk:
                    size += len(event.payload) + len(event.enrichment or b"")
                    if page and size > _PAGE_BYTES:
                        break
                    page.append(_as_message(event))
                after = chunk[-1].position
        return page, change_number

    def _check_place(self, request: ingest_pb2.ReadLogRequest) -> None:
        violations = {}
        if not 0 <= request.shard < self._shard_count:
            violations["shard"] = f"must be from 0 to {self._shard_count - 1}"
        if request.after_position < 0:
            violations["after_position"] = "must not be negative"
        if violations:
            raise InvalidRequest(violations)

    def _shard_of(self, store: bytes) -> int:
        return shard_of(store, shard_count=self._shard_count)


@dataclass(frozen=True, slots=True)
class _Batch:
    """What a call brings to a shard, and where the verdicts go."""

    delivery: Delivery = field(default_factory=Delivery)
    event_places: list[tuple[list[int], int]] = field(default_factory=list)
    rejected_places: list[tuple[Part, int, Rejection]] = field(default_factory=list)

    def settle(self, outcome: Outcome) -> None:
        """Put the verdicts in their places."""
        for (verdicts, index), verdict in zip(self.event_places, outcome.events, strict=True):
            verdicts[index] = verdict
        for (part, index, fault), verdict in zip(
            self.rejected_places, outcome.rejected, strict=True
        ):
            part.verdicts[index] = verdict
            if verdict is Verdict.REJECTED:
                part.faults.append((index, fault))


def _as_message(event: LoggedEvent) -> event_pb2.Event:
    return event_pb2.Event(
        uid=event.uid,
        store_uid=event.store_uid,
        message_id=event.message_id,
        type=event.type,  # type: ignore[arg-type]  # the same numbers
        name=event.name,
        user_id=event.user_id,
        anonymous_id=event.anonymous_id,
        occur_time=as_timestamp(event.occur_time),
        receive_time=as_timestamp(event.receive_time),
        payload=event.payload,
        position=event.position,
        enrichment=event.enrichment or b"",
    )
