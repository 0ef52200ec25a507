"""Answers the RPCs that tell what became of events, and gives rejected ones another chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from common.db import Database
from common.errors import InvalidRequest
from common.page_token import PageTokens, read_page_size
from common.uid import parse_uid
from services.ingest import append
from services.ingest import rejection_repository as repository
from services.ingest.addresses import reduce_addresses
from services.ingest.append import NewEvent, Tally
from services.ingest.intake import hour_of, key_of, new_event
from services.ingest.messages import (
    SHOWN_BYTES,
    as_timestamp,
    check_store_uid,
    fault_message,
    read_timestamp,
    rejection_message,
    shown_text,
)
from services.ingest.news import News
from services.ingest.patches import Patch, PatchNotValid, PatchRefused
from services.ingest.rejection_repository import RejectionFilter, StoredRejection
from services.ingest.rule_book import RuleBook
from services.ingest.rules import StoreRules
from services.ingest.suppressions import Suppressions
from services.ingest.verdicts import (
    Arrival,
    Reading,
    Rejection,
    Verdict,
    read_event,
    salvage_event,
)
from shoptrail.ingest.v1 import event_pb2, ingest_pb2

_MOST_MESSAGE_IDS = 200
_MOST_UIDS = 500
_MOST_REASONS = 500
_LONGEST_SPAN = timedelta(days=93)
_PAGE_SIZE, _LARGEST_PAGE_SIZE = 50, 200
_PAGE_BYTES = 2 * 1024 * 1024
_HOUR = 3600


@dataclass(frozen=True, slots=True)
class _Page:
    rejections: Sequence[StoredRejection]
    next_place: list[int] | None


class Outcomes:
    """Answers requests about verdicts, receipts and rejected events."""

    def __init__(
        self,
        database: Database,
        *,
        rule_book: RuleBook,
        page_tokens: PageTokens,
        news: News,
        shard_of: Callable[[bytes], int],
        suppressions: Sequence[Suppressions],
        event_bytes: int,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._rule_book = rule_book
        self._page_tokens = page_tokens
        self._news = news
        self._shard_of = shard_of
        self._suppressions = suppressions
        self._event_bytes = event_bytes
        self._now = now

    async def get_receipts(
        self, request: ingest_pb2.GetReceiptsRequest
    ) -> ingest_pb2.GetReceiptsResponse:
        """Answer `GetReceipts`."""
        store_uid = check_store_uid(request.store_uid)
        if not 1 <= len(request.message_ids) <= _MOST_MESSAGE_IDS:
            raise InvalidRequest({"message_ids": f"must be 1 to {_MOST_MESSAGE_IDS} ids"})
        keys = [key_of(message_id) for message_id in request.message_ids]
        async with self._database.read() as snapshot:
            logged = await repository.find_logged(snapshot, store_uid, keys)
            rejected = await repository.find_rejections(snapshot, store_uid, keys)
            turned_away = await repository.find_turned_away(snapshot, store_uid, keys)
        response = ingest_pb2.GetReceiptsResponse()
        for message_id, key in zip(request.message_ids, keys, strict=True):
            if found := logged.get(key):
                response.receipts.add(
                    message_id=message_id,
                    verdict=event_pb2.VERDICT_ACCEPTED,
                    uid=found[0],
                    receive_time=as_timestamp(found[1]),
                )
            elif rejection := rejected.get(key):
                message = rejection_message(rejection)
                response.receipts.add(
                    message_id=message_id,
                    verdict=event_pb2.VERDICT_REJECTED,
                    uid=message.uid,
                    receive_time=message.receive_time,
                    fault=message.fault,
                )
            elif time := turned_away.get(key):
                response.receipts.add(
                    message_id=message_id,
                    verdict=event_pb2.VERDICT_QUOTA,
                    receive_time=as_timestamp(time),
                )
        return response

    async def sum_verdicts(
        self, request: ingest_pb2.SumVerdictsRequest
    ) -> ingest_pb2.SumVerdictsResponse:
        """Answer `SumVerdicts`."""
        store_uid = check_store_uid(request.store_uid)
        begin_hour, end_hour = _read_hours(request)
        async with self._database.read() as snapshot:
            hours = await repository.sum_verdicts(
                snapshot, store_uid, begin_hour=begin_hour, end_hour=end_hour
            )
        total: Counter[int] = Counter()
        response = ingest_pb2.SumVerdictsResponse()
        for hour, counts in hours.items():
            total.update(counts)
            begin_time = datetime.fromtimestamp(hour * _HOUR, UTC)
            response.hours.add(
                begin_time=as_timestamp(begin_time), counts=_counts_message(Counter(counts))
            )
        response.total.CopyFrom(_counts_message(total))
        return response

    async def list_rejected(
        self, request: ingest_pb2.ListRejectedEventsRequest
    ) -> ingest_pb2.ListRejectedEventsResponse:
        """Answer `ListRejectedEvents`."""
        check_store_uid(request.store_uid)
        chosen = RejectionFilter(code=request.code, path=request.path, name=request.name)
        async with self._database.read() as snapshot:
            page = await self._read_page(snapshot, request, chosen)
        response = ingest_pb2.ListRejectedEventsResponse(
            rejected_events=[rejection_message(rejection) for rejection in page.rejections]
        )
        if page.next_place:
            response.next_page_token = self._page_tokens.seal(request, page.next_place)
        return response

    async def count_rejected(
        self, request: ingest_pb2.CountRejectedEventsRequest
    ) -> ingest_pb2.CountRejectedEventsResponse:
        """Answer `CountRejectedEvents`."""
        store_uid = check_store_uid(request.store_uid)
        async with self._database.read() as snapshot:
            reasons = await repository.count_reasons(snapshot, store_uid, limit=_MOST_REASONS)
        return ingest_pb2.CountRejectedEventsResponse(
            reasons=[
                ingest_pb2.RejectionReason(
                    code=reason.code,
                    path=reason.path,
                    name=reason.name,
                    event_count=reason.event_count,
                    first_receive_time=as_timestamp(reason.first_receive_time),
                    last_receive_time=as_timestamp(reason.last_receive_time),
                )
                for reason in reasons
            ]
        )

    async def fix_rejected(
        self, request: ingest_pb2.FixRejectedEventsRequest
    ) -> ingest_pb2.FixRejectedEventsResponse:
        """Answer `FixRejectedEvents`."""
        store_uid = check_store_uid(request.store_uid)
        chosen = _read_filter(request.filter)
        try:
            patch = Patch(request.patch)
        except PatchNotValid as fault:
            raise InvalidRequest({"patch": str(fault)}) from None
        rules = (await self._rule_book.rules_of([store_uid]))[store_uid]
        response = ingest_pb2.FixRejectedEventsResponse()
        async with self._database.begin() as transaction:
            page = await self._read_page(transaction, request, chosen, lock=not request.dry_run)
            for rejection in page.rejections:
                try:
                    payload = patch.apply(rejection.payload)
                except PatchRefused:
                    _add_fixed(response, rejection, rejection.payload, None)
                    continue
                payload = reduce_addresses(payload, rules.address_storage)
                outcome = self._read_again(rejection, payload, rules)
                _add_fixed(response, rejection, payload, outcome)
                if not request.dry_run:
                    await repository.save_fix(
                        transaction, rejection.id, payload=payload, now=self._now()
                    )
                    await repository.save_findings(
                        transaction, rejection.id, _findings(rejection, payload, outcome)
                    )
        if page.next_place:
            response.next_page_token = self._page_tokens.seal(request, page.next_place)
        return response

    async def replay_rejected(
        self, request: ingest_pb2.ReplayRejectedEventsRequest
    ) -> ingest_pb2.ReplayRejectedEventsResponse:
        """Answer `ReplayRejectedEvents`."""
        store_uid = check_store_uid(request.store_uid)
        store = parse_uid("sto", store_uid)
        shard = self._shard_of(store)
        chosen = _read_filter(request.filter)
        rules = (await self._rule_book.rules_of([store_uid]))[store_uid]
        async with self._database.begin() as transaction:
            # Under the lock nobody else appends or replays, so what is found stays true.
            log = await append.lock_log(transaction, shard)
            page = await self._read_page(transaction, request, chosen, lock=not request.dry_run)
            outcomes = [
                self._read_again(rejection, rejection.payload, rules)
                for rejection in page.rejections
            ]
            good = {
                rejection.id: new_event(
                    outcome,
                    store=store,
                    receive_time=rejection.receive_time,
                    hour=hour_of(rejection.receive_time),
                    message_id=rejection.message_id,
                )
                for rejection, outcome in zip(page.rejections, outcomes, strict=True)
                if isinstance(outcome, Reading)
            }
            known = await append.find_known(transaction, [event.key for event in good.values()])
            suppressed = await self._suppressions[shard].find(
                transaction, log.suppression_revision, list(good.values()), []
            )
            if not request.dry_run:
                new = [
                    event
                    for event in good.values()
                    if event.key not in known and event.key not in suppressed
                ]
                await self._move(
                    transaction,
                    shard,
                    head=log.position,
                    good=good,
                    new=new,
                    suppressed=suppressed,
                )
                for rejection, outcome in zip(page.rejections, outcomes, strict=True):
                    if isinstance(outcome, Rejection):
                        await repository.save_findings(
                            transaction,
                            rejection.id,
                            _findings(rejection, rejection.payload, outcome),
                        )
        if good and not request.dry_run:
            self._news.tell(shard)

        response = ingest_pb2.ReplayRejectedEventsResponse()
        for rejection, outcome in zip(page.rejections, outcomes, strict=True):
            if isinstance(outcome, Rejection):
                response.replayed_events.add(
                    uid=rejection.uid,
                    verdict=event_pb2.VERDICT_REJECTED,
                    fault=fault_message(outcome),
                )
            else:
                key = good[rejection.id].key
                verdict = event_pb2.VERDICT_ACCEPTED
                if key in suppressed:
                    verdict = event_pb2.VERDICT_SUPPRESSED
                elif key in known:
                    verdict = event_pb2.VERDICT_DUPLICATE
                response.replayed_events.add(uid=rejection.uid, verdict=verdict)
        if page.next_place:
            response.next_page_token = self._page_tokens.seal(request, page.next_place)
        return response

    async def _move(
        self,
        transaction: AsyncConnection,
        shard: int,
        *,
        head: int,
        good: dict[int, NewEvent],
        new: Sequence[NewEvent],
        suppressed: Collection[append.Key | str],
    ) -> None:
        """Take good events from the rejected ones, log those that are new, and count them anew."""
        tallies: Counter[Tally] = Counter()
        stored = {event.key for event in new}
        for event in good.values():
            verdict = Verdict.ACCEPTED if event.key in stored else Verdict.DUPLICATE
            if event.key in suppressed:
                verdict = Verdict.SUPPRESSED
            tallies[Tally(event.store_uid, event.hour, verdict)] += 1
            tallies[Tally(event.store_uid, event.hour, Verdict.REJECTED)] -= 1
        if new:
            await append.insert_events(transaction, shard, head=head, new=new)
            await append.move_head(transaction, shard, head=head + len(new))
        await append.add_tallies(transaction, tallies)
        await repository.delete_rejections(transaction, list(good))

    async def _read_page(
        self,
        transaction: AsyncConnection,
        request: (
            ingest_pb2.ListRejectedEventsRequest
            | ingest_pb2.FixRejectedEventsRequest
            | ingest_pb2.ReplayRejectedEventsRequest
        ),
        chosen: RejectionFilter,
        *,
        lock: bool = False,
    ) -> _Page:
        """The page that the request asks for: as many events as it may hold, and at least one."""
        page_size = read_page_size(
            request.page_size, default=_PAGE_SIZE, largest=_LARGEST_PAGE_SIZE
        )
        place = self._page_tokens.open(request)
        rejections = await repository.list_rejections(
            transaction,
            request.store_uid,
            chosen,
            before_id=place[0] if place else None,
            limit=page_size + 1,
            lock=lock,
        )
        held: list[StoredRejection] = []
        size = 0
        for rejection in rejections[:page_size]:
            size += min(len(rejection.payload), SHOWN_BYTES)
            if held and size > _PAGE_BYTES:
                break
            held.append(rejection)
        return _Page(held, [held[-1].id] if len(held) < len(rejections) else None)

    def _read_again(
        self, rejection: StoredRejection, payload: bytes, rules: StoreRules
    ) -> Reading | Rejection:
        arrival = msgspec.json.decode(rejection.arrival, type=Arrival)
        try:
            return read_event(payload, arrival, limit_bytes=self._event_bytes, rules=rules)
        except Rejection as fault:
            return fault


def _read_hours(request: ingest_pb2.SumVerdictsRequest) -> tuple[int, int]:
    """The first hour, and the one after the last; raises `InvalidRequest`."""
    violations: dict[str, str] = {}
    begin_time = read_timestamp(request, "begin_time", violations)
    end_time = read_timestamp(request, "end_time", violations)
    if begin_time and end_time:
        if begin_time >= end_time:
            violations["end_time"] = "must lie after begin_time"
        elif end_time - begin_time > _LONGEST_SPAN:
            violations["end_time"] = f"must lie at most {_LONGEST_SPAN.days} days after begin_time"
    if violations or begin_time is None or end_time is None:
        raise InvalidRequest(violations)
    return hour_of(begin_time), -(-int(end_time.timestamp() * 1_000_000) // (_HOUR * 1_000_000))


def _read_filter(given: ingest_pb2.RejectedEventFilter) -> RejectionFilter:
    if len(given.uids) > _MOST_UIDS:
        raise InvalidRequest({"filter.uids": f"may be {_MOST_UIDS} at most"})
    return RejectionFilter(
        uids=tuple(given.uids), code=given.code, path=given.path, name=given.name
    )


def _counts_message(counts: Counter[int]) -> ingest_pb2.VerdictCounts:
    return ingest_pb2.VerdictCounts(
        received_count=counts.total(),
        accepted_count=counts[Verdict.ACCEPTED],
        duplicate_count=counts[Verdict.DUPLICATE],
        rejected_count=counts[Verdict.REJECTED],
        quota_count=counts[Verdict.QUOTA],
        suppressed_count=counts[Verdict.SUPPRESSED],
    )


def _add_fixed(
    response: ingest_pb2.FixRejectedEventsResponse,
    rejection: StoredRejection,
    payload: bytes,
    outcome: Reading | Rejection | None,
) -> None:
    """Say what a patch made of an event; the outcome is None if it could not be applied."""
    fault = None
    if outcome is None:
        fault = rejection_message(rejection).fault
    elif isinstance(outcome, Rejection):
        fault = fault_message(outcome)
    response.fixed_events.add(
        uid=rejection.uid,
        patched=outcome is not None,
        fault=fault,
        payload=shown_text(payload),
    )


def _findings(
    rejection: StoredRejection, payload: bytes, outcome: Reading | Rejection
) -> dict[str, str | int]:
    """What is known of the event now. Of one that has become good, the old fault stays."""
    salvage = salvage_event(payload, msgspec.json.decode(rejection.arrival, type=Arrival))
    findings: dict[str, str | int] = {
        "type": salvage.type,
        "name": salvage.name,
        "user_id": salvage.user_id,
        "anonymous_id": salvage.anonymous_id,
    }
    if isinstance(outcome, Rejection):
        findings |= {
            "code": outcome.code,
            "path": outcome.path[:255],
            "message": str(outcome)[:1000],
        }
    return findings
