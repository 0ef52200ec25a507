"""Lets events expire when the days are over for which their store keeps them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from common.cron.job import Batch, RunBatch
from common.db import Database
from common.errors import InvalidRequest, WrongState
from common.uid import parse_uid
from services.ingest import repository
from services.ingest import retention_repository as rules_of
from services.ingest.append import POSITION_BITS
from services.ingest.intake import key_of
from services.ingest.messages import as_timestamp, check_store_uid
from services.ingest.overwriting import expire
from services.ingest.people_index import index_batch
from services.ingest.retention_repository import Dated, Rule
from services.ingest.subjects import SubjectDigests
from services.ingest.verdicts import TEXT_LENGTH, EventType
from shoptrail.ingest.v1 import ingest_pb2, retention_pb2

_FEWEST_DAYS, _MOST_DAYS = 2, 3650
_MOST_RULES = 200
# Looked at in one transaction, and overwritten under the lock that appending takes.
_LOOKED_AT = 1000
_OVERWRITTEN = 100
_PREVIEWED = 100_000


class Ages:
    """How old events may get, by the rules of stores."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._days: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for rule in rules:
            self._days[rule.store_uid][rule.event_name] = rule.days
        finite = [days for of_store in self._days.values() for days in of_store.values() if days]
        self.shortest = timedelta(days=min(finite, default=0))
        self.longest = timedelta(days=max(finite, default=0))

    @property
    def are_endless(self) -> bool:
        """Whether everything is kept for ever."""
        return not self.longest

    def days_of(self, event: Dated) -> int:
        """For how many days the event is kept; 0 for ever."""
        of_store: Mapping[str, int] = self._days.get(event.store_uid, {})
        return of_store.get(_name_of(event), of_store.get("", 0))

    def is_over(self, event: Dated, now: datetime) -> bool:
        """Whether the event is kept no longer, and hasn't expired yet."""
        if not (event.user_id or event.anonymous_id):
            return False  # Every event has one of them; what has neither is a remnant.
        days = self.days_of(event)
        return days > 0 and event.receive_time < now - timedelta(days=days)


def expire_events(digests: SubjectDigests) -> RunBatch:
    """Batches of a job that overwrites what is kept no longer. The cursor is shard and position."""

    async def run_batch(transaction: AsyncConnection, *, cursor: str, now: datetime) -> Batch:
        ages = Ages(await rules_of.list_rules(transaction))
        shards = [shard for shard, _ in await repository.list_heads(transaction)]
        if ages.are_endless or not shards:
            return Batch(row_count=0, done=True)
        for one in shards:
            if await index_batch(transaction, digests, one):
                # Whoever names the same order must be found.
                return Batch(row_count=0, done=False, cursor=cursor)
        if cursor:
            shard, after = map(int, cursor.split())
        else:
            shard = shards[0]
            after = await rules_of.get_expiry_position(transaction, shard)
        looked_at = await rules_of.list_dated(transaction, shard, after=after, limit=_LOOKED_AT)
        young = now - ages.shortest
        reached = after
        due: list[int] = []
        for event in looked_at:
            if event.receive_time >= young or len(due) == _OVERWRITTEN:
                break
            reached = event.id - (shard << POSITION_BITS)
            if ages.is_over(event, now):
                due.append(event.id)
        if due:
            await expire(transaction, digests, shard, due, now=now)
        settled = after
        for event in looked_at:
            place = event.id - (shard << POSITION_BITS)
            if place > reached or event.receive_time >= now - ages.longest:
                break
            settled = place
        known = await rules_of.get_expiry_position(transaction, shard)
        if after == known < settled:
            await rules_of.set_expiry_position(transaction, shard, settled)
        if reached > after:
            return Batch(row_count=len(due), done=False, cursor=f"{shard} {reached}")
        later = [one for one in shards if one > shard]
        if not later:
            return Batch(row_count=len(due), done=True)
        begin = await rules_of.get_expiry_position(transaction, later[0])
        return Batch(row_count=len(due), done=False, cursor=f"{later[0]} {begin}")

    return run_batch


class RetentionAnswers:
    """Answers requests about how long events are kept."""

    def __init__(
        self,
        database: Database,
        *,
        shard_of: Callable[[bytes], int],
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._shard_of = shard_of
        self._now = now

    async def put_rule(
        self, request: ingest_pb2.PutRetentionRuleRequest
    ) -> ingest_pb2.PutRetentionRuleResponse:
        """Answer `PutRetentionRule`."""
        store_uid = check_store_uid(request.store_uid)
        violations = _faults_of(request.event_name, request.days)
        if violations:
            raise InvalidRequest(violations)
        rule = Rule(store_uid, request.event_name, request.days, self._now())
        async with self._database.begin() as transaction:
            await rules_of.put_rule(transaction, rule, key_of(rule.event_name))
            if await rules_of.count_rules(transaction, store_uid) > _MOST_RULES:
                raise WrongState(
                    f"A store may have {_MOST_RULES} retention rules.", {"uid": store_uid}
                )
        return ingest_pb2.PutRetentionRuleResponse(rule=_as_message(rule))

    async def list_rules(
        self, request: ingest_pb2.ListRetentionRulesRequest
    ) -> ingest_pb2.ListRetentionRulesResponse:
        """Answer `ListRetentionRules`."""
        store_uid = check_store_uid(request.store_uid)
        async with self._database.read() as snapshot:
            rules = await rules_of.list_rules(snapshot, store_uid)
        return ingest_pb2.ListRetentionRulesResponse(rules=[_as_message(rule) for rule in rules])

    async def preview(
        self, request: ingest_pb2.PreviewRetentionRequest
    ) -> ingest_pb2.PreviewRetentionResponse:
        """Answer `PreviewRetention`."""
        store_uid = check_store_uid(request.store_uid)
        shard = self._shard_of(parse_uid("sto", store_uid))
        now = self._now()
        async with self._database.read() as snapshot:
            rules = await rules_of.list_rules(snapshot, store_uid)
            if request.HasField("rule"):
                given = request.rule
                violations = _faults_of(given.event_name, given.days)
                if violations:
                    raise InvalidRequest({f"rule.{name}": why for name, why in violations.items()})
                rules = [rule for rule in rules if rule.event_name != given.event_name]
                rules.append(Rule(store_uid, given.event_name, given.days, now))
            looked_at = await rules_of.list_dated(
                snapshot, shard, after=0, limit=_PREVIEWED, store_uids=[store_uid]
            )
        ages = Ages(rules)
        due = Counter(
            (_name_of(event), ages.days_of(event))
            for event in looked_at
            if ages.is_over(event, now)
        )
        return ingest_pb2.PreviewRetentionResponse(
            due=[
                retention_pb2.RetentionPreview(event_name=name, days=days, due_count=count)
                for (name, days), count in sorted(due.items())
            ],
            complete=len(looked_at) < _PREVIEWED,
        )


def _name_of(event: Dated) -> str:
    """How rules call the event."""
    if event.type == EventType.TRACK:
        return event.name
    return EventType(event.type).name.lower()


def _faults_of(event_name: str, days: int) -> dict[str, str]:
    violations = {}
    if days and not _FEWEST_DAYS <= days <= _MOST_DAYS:
        violations["days"] = f"must be 0, or {_FEWEST_DAYS} to {_MOST_DAYS}"
    if len(event_name) > TEXT_LENGTH:
        violations["event_name"] = f"may have {TEXT_LENGTH} characters"
    return violations


def _as_message(rule: Rule) -> retention_pb2.RetentionRule:
    return retention_pb2.RetentionRule(
        event_name=rule.event_name, days=rule.days, update_time=as_timestamp(rule.update_time)
    )
