"""Commits what calls bring to a shard of the log: many calls in one transaction."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection

from common.db import Database, Session
from common.errors import DependencyUnavailable
from common.log import describe_failure
from common.uid import parse_uid
from services.ingest import append, repository
from services.ingest.append import Key, LogHead, NewEvent, Tally
from services.ingest.intake import hour_of
from services.ingest.news import News
from services.ingest.reach import LogOutOfReach, Witness, is_out_of_reach
from services.ingest.repository import QuotaReceipt, RejectedEvent
from services.ingest.suppressions import NOBODY, Suppressions
from services.ingest.verdicts import Verdict

log = logging.getLogger(__name__)

# Enough to make the commit cheap, and few enough that readers and others get their turn.
_EVENTS_A_TRANSACTION = 2000
_BYTES_A_TRANSACTION = 4 * 1024 * 1024
# A store that goes on sending when its quota is used up must not fill the disk with receipts.
_QUOTA_RECEIPTS_A_DAY = 10_000
_COSTING = (Verdict.ACCEPTED, Verdict.REJECTED)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a call brings to a shard, to be committed together."""

    events: list[NewEvent] = field(default_factory=list)
    """Events that are stored, unless the log has them."""
    rejected: list[RejectedEvent] = field(default_factory=list)
    """Events that are kept with the reason why they can't be stored."""
    quotas: dict[bytes, int] = field(default_factory=dict)
    """How many events a day these stores may send; the others, as many as they like."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a delivery."""

    events: Sequence[Verdict]
    """`ACCEPTED`, `DUPLICATE`, `SUPPRESSED` or `QUOTA` for each of its events."""
    rejected: Sequence[Verdict]
    """`REJECTED`, `SUPPRESSED` or `QUOTA` for each of its rejected events."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A delivery that waited in a journal, and its number there."""

    sequence: int
    delivery: Delivery
    witness: Witness | None
    """Tells whether the delivery was stored already, if nobody knew."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    delivery: Delivery
    byte_count: int
    outcome: asyncio.Future[Outcome]


@dataclass(slots=True, eq=False)
class _Attempt:
    """What a task writes now, and how far it is."""

    gathered: list[_Waiting] = field(default_factory=list)
    committing: bool = False
    witness: Witness | None = None
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None

    def failure(self) -> Exception:
        """What those who wait are to hear if nothing more comes of it."""
        if self.committing and self.witness is None:
            # Nothing was new. Whether it was counted, nobody knows: that is for the sender.
            return DependencyUnavailable()
        return LogOutOfReach(self.witness)


class LogWriter:
    """Appends to one shard, a transaction after the other.

    While one is under way, calls gather; the next takes them together. A call that
    comes alone is served at once. A transaction that takes longer than `patience_seconds`
    is given up.
    """

    def __init__(
        self,
        database: Database,
        shard: int,
        news: News,
        suppressions: Suppressions,
        *,
        patience_seconds: float,
    ) -> None:
        self._database = database
        self._suppressions = suppressions
        self._shard = shard
        self._news = news
        self._patience_seconds = patience_seconds
        self._waiting: deque[_Waiting] = deque()
        self._writing: _Attempt | None = None
        # The head as our last transaction left it: unless another process has written since,
        # the next one need not ask.
        self._known_log: LogHead | None = None
        # They end by themselves, however long a dead connection makes them take.
        self._given_up: set[asyncio.Task[None]] = set()

    @property
    def shard(self) -> int:
        """The shard's number."""
        return self._shard

    async def append(self, delivery: Delivery) -> Outcome:
        """Store the events that the log doesn't have; says what became of each.

        It is said after the commit. Of events with the same key, the first is stored.
        Rejected events and the count of all verdicts are committed with them. Raises
        `LogOutOfReach` if the database is away or too slow, or what else it raised; then
        some of it may be stored, and repeating the call tells.
        """
        byte_count = sum(len(event.payload) for event in delivery.events)
        byte_count += sum(len(event.payload) for event in delivery.rejected)
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(delivery, byte_count, outcome))
        self._write_on()
        return await outcome

    def give_up_waiting(self) -> None:
        """Fail all calls whose turn has not come."""
        while self._waiting:
            _fail([self._waiting.popleft()], LogOutOfReach())

    async def drain(self, journal_uid: bytes, kept: Sequence[Kept]) -> None:
        """Store what a journal kept, in its order, and note how far that is.

        What was stored before is neither stored nor counted again, so this may be repeated.
        Quotas hold nothing back: those events have been accepted. They count, though.
        """
        self._known_log = None
        async with self._database.begin() as transaction:
            await append.lock_log(transaction, self._shard)
            done = await repository.lock_journal_cursor(transaction, self._shard, journal_uid)
            deliveries = [
                each.delivery
                for each in kept
                if each.sequence > done
                and not (
                    each.witness is not None
                    and await repository.is_stored(transaction, each.witness)
                )
            ]
            _, written = await self._store(transaction, deliveries)
            await repository.put_journal_cursor(
                transaction, self._shard, journal_uid, position=kept[-1].sequence
            )
        if written.new_count:
            self._news.tell(self._shard)

    async def forget_journal(self, journal_uid: bytes) -> None:
        """Forget how far a journal was that is gone."""
        async with self._database.begin() as transaction:
            await repository.remove_journal_cursor(transaction, self._shard, journal_uid)

    def _write_on(self) -> None:
        """See to it that those who wait are written."""
        if self._writing is None and self._waiting:
            attempt = self._writing = _Attempt()
            self._watch(attempt)
            attempt.task = asyncio.create_task(self._write_waiting(attempt))

    def _watch(self, attempt: _Attempt) -> None:
        if attempt.timer is not None:
            attempt.timer.cancel()
        attempt.timer = asyncio.get_running_loop().call_later(
            self._patience_seconds, self._give_up, attempt
        )

    def _give_up(self, attempt: _Attempt) -> None:
        """Go on without an attempt that takes too long. It is not waited for."""
        if attempt.task is not None:
            attempt.task.cancel()
            self._given_up.add(attempt.task)
            attempt.task.add_done_callback(self._given_up.discard)
        log.warning("log too slow", extra={"shard": self._shard})
        _fail(attempt.gathered or self._gather(), attempt.failure())
        self._writing = None
        self._write_on()

    async def _write_waiting(self, attempt: _Attempt) -> None:
        try:
            while self._waiting:
                async with self._database.session() as session:
                    while gathered := self._gather():
                        attempt.gathered = gathered
                        self._watch(attempt)
                        deliveries = [waiting.delivery for waiting in gathered]
                        outcomes = await self._write(session, deliveries, attempt)
                        attempt.gathered = []
                        for waiting, outcome in zip(gathered, outcomes, strict=True):
                            if not waiting.outcome.done():  # Its call may have been given up.
                                waiting.outcome.set_result(outcome)
                    self._watch(attempt)
        except Exception as error:  # Each call must hear of it, whatever it is.
            failure = error
            if is_out_of_reach(error):
                failure = attempt.failure()
                log.warning(
                    "log out of reach", extra={"shard": self._shard, **describe_failure(error)}
                )
            if self._writing is attempt:
                _fail(attempt.gathered or self._gather(), failure)
        finally:
            if self._writing is attempt:
                if attempt.timer is not None:
                    attempt.timer.cancel()
                self._writing = None
                self._write_on()

    def _gather(self) -> list[_Waiting]:
        """The calls that go with the next transaction: at least one, and as many as it may hold."""
        gathered: list[_Waiting] = []
        event_count = byte_count = 0
        while self._waiting:
            waiting = self._waiting[0]
            if waiting.outcome.done():  # Its call was given up, so nobody would learn of it.
                self._waiting.popleft()
                continue
            event_count += len(waiting.delivery.events)
            byte_count += waiting.byte_count
            if gathered and (
                event_count > _EVENTS_A_TRANSACTION or byte_count > _BYTES_A_TRANSACTION
            ):
                break
            gathered.append(self._waiting.popleft())
        return gathered

    async def _write(
        self, session: Session, deliveries: Sequence[Delivery], attempt: _Attempt
    ) -> Sequence[Outcome]:
        """Commit the deliveries together; says what became of each."""
        known_log, self._known_log = self._known_log, None
        async with session.begin() as transaction:
            outcomes, written = await self._store(transaction, deliveries, known_log=known_log)
            attempt.committing, attempt.witness = True, written.witness
        attempt.committing, attempt.witness = False, None
        self._known_log = written.log
        if written.new_count:
            self._news.tell(self._shard)
        return outcomes

    async def _store(
        self,
        transaction: AsyncConnection,
        deliveries: Sequence[Delivery],
        *,
        known_log: LogHead | None = None,
    ) -> tuple[Sequence[Outcome], _Written]:
        """Store the deliveries after the head, which is locked; says what becomes of each.

        `known_log` is what the head is if nobody else has written.
        """
        first_of: dict[Key, NewEvent] = {}
        for delivery in deliveries:
            for event in delivery.events:
                first_of.setdefault(event.key, event)
        new = list(first_of.values())
        rejected = [event for delivery in deliveries for event in delivery.rejected]
        log, claimed_count = known_log, len(new)
        if (
            log is None
            or not new
            or not await append.claim_positions(
                transaction, self._shard, log=log, count=claimed_count
            )
        ):
            log, claimed_count = await append.lock_log(transaction, self._shard), 0
        head = log.position
        beyond: frozenset[Key | str] = frozenset()
        suppressed = NOBODY
        if log.suppression_revision:
            suppressed = await self._suppressions.find(
                transaction, log.suppression_revision, new, rejected
            )
            if suppressed:
                new = [event for event in new if event.key not in suppressed]
                rejected = [event for event in rejected if event.uid not in suppressed]
        quotas: dict[bytes, int] = {}
        for delivery in deliveries:
            quotas |= delivery.quotas
        if quotas:
            beyond = await _find_beyond(transaction, new, rejected, quotas)
            new = [event for event in new if event.key not in beyond]
            rejected = [event for event in rejected if event.uid not in beyond]
        # Duplicates are rare, so they are looked for only where the insert met one.
        if not await append.insert_events(transaction, self._shard, head=head, new=new):
            known = await append.find_known(transaction, first_of)
            new = [event for event in new if event.key not in known]
            await append.insert_events(transaction, self._shard, head=head, new=new)
        stored = {id(event) for event in new}
        if beyond:
            await _add_quota_receipts(transaction, deliveries, beyond)
        outcomes = [
            _outcome_of(delivery, stored, suppressed=suppressed, beyond=beyond)
            for delivery in deliveries
        ]
        await append.add_tallies(transaction, _count(deliveries, outcomes))
        if rejected:
            await repository.add_rejected_events(transaction, rejected)
        if len(new) != claimed_count:
            await append.move_head(transaction, self._shard, head=head + len(new))
        log = LogHead(head + len(new), log.suppression_revision, log.change_number)
        return outcomes, _Written(len(new), await _find_witness(transaction, new, rejected), log)


@dataclass(frozen=True, slots=True)
class _Written:
    """What a transaction is about to commit."""

    new_count: int
    witness: Witness | None
    log: LogHead
    """As it is from then on."""


async def _find_witness(
    transaction: AsyncConnection, new: Sequence[NewEvent], rejected: Sequence[RejectedEvent]
) -> Witness | None:
    """An event that is there only if the transaction is committed."""
    if new:
        return Witness(event_uid=new[0].uid)
    if rejected:
        witness = Witness(rejected_uid=rejected[0].uid)
        if await repository.is_stored(transaction, witness):  # Else it was known before.
            return witness
    return None


def _fail(gathered: Sequence[_Waiting], failure: Exception) -> None:
    for waiting in gathered:
        if not waiting.outcome.done():
            waiting.outcome.set_exception(failure)


async def _find_beyond(
    transaction: AsyncConnection,
    new: Sequence[NewEvent],
    rejected: Sequence[RejectedEvent],
    quotas: Mapping[bytes, int],
) -> frozenset[Key | str]:
    """Which of these events are beyond the daily quota of their store, by key or uid.

    Duplicates are not: they cost nothing.
    """
    limited = [event for event in new if event.store_uid in quotas]
    known = await append.find_known(transaction, [event.key for event in limited])
    claims: list[tuple[bytes, int, Key | str]] = [
        (event.store_uid, event.hour, event.key) for event in limited if event.key not in known
    ]
    for rejection in rejected:
        store = parse_uid("sto", rejection.store_uid)
        if store in quotas:
            claims.append((store, hour_of(rejection.receive_time), rejection.uid))
    left: dict[tuple[bytes, int], int] = {}
    beyond: set[Key | str] = set()
    for store, hour, claimant in claims:
        place = (store, hour // 24)
        if place not in left:
            left[place] = quotas[store] - await append.count_day(
                transaction, store, day=hour // 24, verdicts=_COSTING
            )
        left[place] -= 1
        if left[place] < 0:
            beyond.add(claimant)
    return frozenset(beyond)


async def _add_quota_receipts(
    transaction: AsyncConnection, deliveries: Sequence[Delivery], beyond: Collection[Key | str]
) -> None:
    """Note which events were turned away, a bounded number a day for each store."""
    receipts: dict[Key, QuotaReceipt] = {}
    for delivery in deliveries:
        for event in delivery.events:
            if event.key in beyond:
                receipts[event.key] = QuotaReceipt(*event.key, event.receive_time)
        for rejection in delivery.rejected:
            if rejection.uid in beyond:
                key = (parse_uid("sto", rejection.store_uid), rejection.message_key)
                receipts[key] = QuotaReceipt(*key, rejection.receive_time)
    by_day: dict[tuple[bytes, int], list[QuotaReceipt]] = {}
    for receipt in receipts.values():
        place = (receipt.store_uid, hour_of(receipt.receive_time) // 24)
        by_day.setdefault(place, []).append(receipt)
    for (store, day), of_day in by_day.items():
        before = await append.count_day(transaction, store, day=day, verdicts=(Verdict.QUOTA,))
        kept = of_day[: max(0, _QUOTA_RECEIPTS_A_DAY - before)]
        if kept:
            await repository.add_quota_receipts(transaction, kept)


def _outcome_of(
    delivery: Delivery,
    stored: set[int],
    *,
    suppressed: Collection[Key | str],
    beyond: Collection[Key | str],
) -> Outcome:
    verdicts = [
        Verdict.ACCEPTED if id(event) in stored else Verdict.DUPLICATE for event in delivery.events
    ]
    rejected = [Verdict.REJECTED] * len(delivery.rejected)
    for verdict, among in ((Verdict.SUPPRESSED, suppressed), (Verdict.QUOTA, beyond)):
        if among:
            for place, event in enumerate(delivery.events):
                if event.key in among:
                    verdicts[place] = verdict
            for place, rejection in enumerate(delivery.rejected):
                if rejection.uid in among:
                    rejected[place] = verdict
    return Outcome(verdicts, rejected)


def _count(deliveries: Sequence[Delivery], outcomes: Sequence[Outcome]) -> Mapping[Tally, int]:
    """How many of the deliveries' events got which verdict."""
    counts: Counter[tuple[bytes, int, Verdict]] = Counter()
    for delivery, outcome in zip(deliveries, outcomes, strict=True):
        for event, verdict in zip(delivery.events, outcome.events, strict=True):
            counts[event.store_uid, event.hour, verdict] += 1
        for rejection, verdict in zip(delivery.rejected, outcome.rejected, strict=True):
            store = parse_uid("sto", rejection.store_uid)
            counts[store, hour_of(rejection.receive_time), verdict] += 1
    return {Tally(*place): count for place, count in counts.items()}
