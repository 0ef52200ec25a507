"""Answers the RPCs about a person: who it is, and what is kept out, told or erased of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from common.context import get_call
from common.db import Database, note_untidy
from common.errors import InvalidRequest
from common.page_token import PageTokens, read_page_size
from common.uid import parse_uid
from services.ingest import append, rejection_repository
from services.ingest import subject_repository as repository
from services.ingest.messages import check_store_uid
from services.ingest.news import News
from services.ingest.overwriting import ERASED, overwrite
from services.ingest.people_index import PeopleIndex
from services.ingest.subject_repository import RejectedText, StoredEvent
from services.ingest.subjects import Subject, SubjectDigests, read_mentions
from services.ingest.verdicts import EventType
from shoptrail.ingest.v1 import ingest_pb2
from shoptrail.privacy.v1 import subject_pb2

_MOST_IDS = 1000
_LONGEST_ID = 255
_BATCH_EVENTS = 100
_RESERVE_SECONDS = 0.5
_NO_DEADLINE_SECONDS = 10.0
_PAGE_SIZE, _LARGEST_PAGE_SIZE = 200, 1000
_PAGE_BYTES = 2 * 1024 * 1024
_JOINING = (EventType.IDENTIFY, EventType.ALIAS)


class SubjectAnswers:
    """Answers requests about a person of a store."""

    def __init__(
        self,
        database: Database,
        *,
        digests: SubjectDigests,
        page_tokens: PageTokens,
        news: News,
        shard_of: Callable[[bytes], int],
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._digests = digests
        self._page_tokens = page_tokens
        self._news = news
        self._shard_of = shard_of
        self._now = now
        self._index = PeopleIndex(database, digests)

    async def resolve(
        self, request: ingest_pb2.ResolveSubjectRequest
    ) -> ingest_pb2.ResolveSubjectResponse:
        """Answer `ResolveSubject`."""
        store_uid = check_store_uid(request.store_uid)
        subject = read_subject(request.subject)
        await self._index.catch_up(until=_until())
        async with self._database.read() as snapshot:
            found = await _Closure(snapshot, self._digests, store_uid).of(subject)
        return ingest_pb2.ResolveSubjectResponse(subject=subject_message(found))

    async def suppress(
        self, request: ingest_pb2.SuppressSubjectRequest
    ) -> ingest_pb2.SuppressSubjectResponse:
        """Answer `SuppressSubject`."""
        store_uid = check_store_uid(request.store_uid)
        store = parse_uid("sto", store_uid)
        shard = self._shard_of(store)
        digests = set(self._digests.of_subject(store, read_subject(request.subject)))
        async with self._database.begin() as transaction:
            # Under the lock of whoever appends: all that is committed later has seen it.
            log = await append.lock_log(transaction, shard)
            changed_count = await repository.put_suppressions(
                transaction,
                store_uid=store_uid,
                shard=shard,
                digests=digests,
                active=not request.lifted,
                revision=log.suppression_revision,
                now=self._now(),
            )
        return ingest_pb2.SuppressSubjectResponse(changed_count=changed_count)

    async def erase(
        self, request: ingest_pb2.EraseSubjectRequest
    ) -> ingest_pb2.EraseSubjectResponse:
        """Answer `EraseSubject`."""
        store_uid = check_store_uid(request.store_uid)
        subject = read_subject(request.subject)
        until = _until()
        await self._index.catch_up(until=until)
        erased: Counter[str] = Counter()
        clean = False
        while not clean and time.monotonic() < until:
            before = erased.total()
            finished = await self._erase_logged(store_uid, subject, erased, until=until)
            finished = finished and await self._erase_rejected(
                store_uid, subject, erased, until=until
            )
            # Only a look at everything that finds nothing shows that nothing is left.
            clean = finished and erased.total() == before
        async with self._database.begin() as transaction:
            if clean:
                digests = set(self._digests.of_subject(parse_uid("sto", store_uid), subject))
                await repository.mark_erased(transaction, store_uid, digests, now=self._now())
            numbers = await repository.list_change_numbers(transaction)
        return ingest_pb2.EraseSubjectResponse(
            done=clean,
            erased=[
                subject_pb2.TableCount(table=f"ingest.{table}", row_count=count)
                for table, count in sorted(erased.items())
            ],
            changes=[
                subject_pb2.ShardChange(shard=shard, number=number)
                for shard, number in numbers
                if number
            ],
        )

    async def export(
        self, request: ingest_pb2.ExportSubjectRequest
    ) -> ingest_pb2.ExportSubjectResponse:
        """Answer `ExportSubject`."""
        store_uid = check_store_uid(request.store_uid)
        store = parse_uid("sto", store_uid)
        subject = read_subject(request.subject)
        page_size = read_page_size(
            request.page_size, default=_PAGE_SIZE, largest=_LARGEST_PAGE_SIZE
        )
        place = self._page_tokens.open(request) or ["events", -1]
        kind, after = str(place[0]), int(place[1])
        rows: list[tuple[int, bytes]] = []
        async with self._database.read() as snapshot:
            if kind == "events":
                ids = await repository.find_event_ids(
                    snapshot,
                    store_uid,
                    set(self._digests.of_subject(store, subject)),
                    after=after,
                    limit=page_size + 1,
                )
                looked_at = len(ids)
                page = ids[:page_size]
                rows = [
                    (event.id, _exported_event(event))
                    for event in await repository.get_events(snapshot, page)
                    if _is_about(subject, event)
                ]
                last = page[-1] if page else after
            else:
                texts = await repository.list_rejected_texts(
                    snapshot, store_uid, after=after, limit=page_size + 1
                )
                looked_at = len(texts)
                rows = [
                    (text.id, _exported_rejection(text))
                    for text in texts[:page_size]
                    if _tells_of(subject, text)
                ]
                last = texts[:page_size][-1].id if texts else after
        rows, cut = _cut(rows)
        response = ingest_pb2.ExportSubjectResponse(
            parts=[subject_pb2.SubjectRows(name=kind, rows=[row for _, row in rows])]
            if rows
            else []
        )
        next_place: list[Any] | None = None
        if cut:
            next_place = [kind, rows[-1][0]]
        elif looked_at > page_size:
            next_place = [kind, last]
        elif kind == "events":
            next_place = ["rejected_events", 0]
        if next_place:
            response.next_page_token = self._page_tokens.seal(request, next_place)
        return response

    async def _erase_logged(
        self, store_uid: str, subject: Subject, erased: Counter[str], *, until: float
    ) -> bool:
        """Erase events from the log; returns whether all were looked at in time."""
        digests = set(self._digests.of_subject(parse_uid("sto", store_uid), subject))
        after = -1
        while time.monotonic() < until:
            async with self._database.read() as snapshot:
                ids = await repository.find_event_ids(
                    snapshot, store_uid, digests, after=after, limit=_BATCH_EVENTS
                )
            if not ids:
                return True
            after = ids[-1]
            for shard, of_shard in groupby(ids, key=_shard_of_id):
                async with self._database.begin() as transaction:
                    await self._erase_batch(
                        transaction, store_uid, subject, shard, list(of_shard), erased
                    )
                self._news.tell(shard)
        return False

    async def _erase_batch(
        self,
        transaction: AsyncConnection,
        store_uid: str,
        subject: Subject,
        shard: int,
        ids: Sequence[int],
        erased: Counter[str],
    ) -> None:
        """Overwrite those of these events that are the person's."""
        log = await append.lock_log(transaction, shard)
        mine = [
            event
            for event in await repository.get_events(transaction, ids)
            if _is_about(subject, event)
        ]
        if mine:
            erased.update(
                await overwrite(
                    transaction,
                    self._digests,
                    store_uid,
                    mine,
                    log=log,
                    mark=ERASED,
                    now=self._now(),
                    is_mine=lambda event: _is_about(subject, event),
                )
            )

    async def _erase_rejected(
        self, store_uid: str, subject: Subject, erased: Counter[str], *, until: float
    ) -> bool:
        """Remove rejected events; returns whether all were looked at in time."""
        after = 0
        while time.monotonic() < until:
            async with self._database.begin() as transaction:
                texts = await repository.list_rejected_texts(
                    transaction, store_uid, after=after, limit=_BATCH_EVENTS
                )
                if not texts:
                    return True
                after = texts[-1].id
                mine = [text.id for text in texts if _tells_of(subject, text)]
                if mine:
                    await rejection_repository.delete_rejections(transaction, mine)
                    await note_untidy(transaction)
            if mine:
                erased["rejected_events"] += len(mine)
        return False


class _Closure:
    """Finds all ids of a person, in a snapshot.

    By the rules of the reports: a browser belongs to the user with whom it was identified
    first, and users are one person by `alias`.
    """

    def __init__(self, snapshot: AsyncConnection, digests: SubjectDigests, store_uid: str) -> None:
        self._snapshot = snapshot
        self._digests = digests
        self._store_uid = store_uid
        self._store = parse_uid("sto", store_uid)

    async def of(self, subject: Subject) -> Subject:
        """The person that these ids belong to."""
        for email in sorted(subject.emails):
            subject = subject.joined(await self._named_by(email))
        users, browsers = set(subject.user_ids), set(subject.anonymous_ids)
        for browser in sorted(browsers):
            owner = await self._owner_of(browser)
            if owner:
                users.add(owner)
        asked: set[str] = set()
        while left := sorted(users - asked):
            asked |= set(left)
            candidates: set[str] = set()
            joining = await self._joining([self._digests.of_user(self._store, one) for one in left])
            for event in joining:
                mentions = read_mentions(event.type, event.payload)
                if event.type == EventType.ALIAS and event.user_id and mentions.previous_id:
                    if event.user_id in users or mentions.previous_id in users:
                        users |= {event.user_id, mentions.previous_id}
                        candidates.add(mentions.previous_id)
                elif event.user_id in users and event.anonymous_id:
                    candidates.add(event.anonymous_id)
            for browser in sorted(candidates - browsers):
                if await self._owner_of(browser) in users:
                    browsers.add(browser)
        return Subject(frozenset(users), frozenset(browsers), subject.emails)

    async def _named_by(self, email: str) -> Subject:
        """Whom an e-mail address names: who identified themselves by it, or is called so."""
        users, browsers = set(), set()
        for event in await self._joining(
            [self._digests.of_email(self._store, email), self._digests.of_user(self._store, email)],
            types=(),
        ):
            if event.user_id:
                users.add(event.user_id)
            elif event.anonymous_id:
                browsers.add(event.anonymous_id)
        return Subject(frozenset(users), frozenset(browsers), frozenset())

    async def _owner_of(self, browser: str) -> str:
        """The user with whom a browser was identified first; empty if it never was."""
        claims = []
        for event in await self._joining([self._digests.of_browser(self._store, browser)]):
            claimed = (
                event.anonymous_id
                if event.type == EventType.IDENTIFY
                else read_mentions(event.type, event.payload).previous_id
            )
            if claimed == browser and event.user_id:
                claims.append((event.occur_time, event.user_id))
        return min(claims)[1] if claims else ""

    async def _joining(
        self, digests: Collection[bytes], *, types: Collection[int] = _JOINING
    ) -> list[StoredEvent]:
        ids = await repository.find_event_ids(self._snapshot, self._store_uid, digests)
        return await repository.get_events(self._snapshot, ids, types=types)


def read_subject(message: subject_pb2.Subject) -> Subject:
    """The person; raises `InvalidRequest` if there are no ids, too many, or none that can be."""
    subject = Subject(
        frozenset(message.user_ids),
        frozenset(message.anonymous_ids),
        frozenset(email.lower() for email in message.emails),
    )
    ids = [*subject.user_ids, *subject.anonymous_ids, *subject.emails]
    if not 1 <= len(ids) <= _MOST_IDS:
        raise InvalidRequest({"subject": f"must have 1 to {_MOST_IDS} ids"})
    if any(not 1 <= len(one) <= _LONGEST_ID for one in ids):
        raise InvalidRequest({"subject": f"ids have 1 to {_LONGEST_ID} characters"})
    return subject


def subject_message(subject: Subject) -> subject_pb2.Subject:
    """The person as a message."""
    return subject_pb2.Subject(
        user_ids=sorted(subject.user_ids),
        anonymous_ids=sorted(subject.anonymous_ids),
        emails=sorted(subject.emails),
    )


def _is_about(subject: Subject, event: StoredEvent) -> bool:
    mentions = read_mentions(event.type, event.payload)
    return subject.owns(
        user_id=event.user_id,
        anonymous_id=event.anonymous_id,
        previous_id=mentions.previous_id,
    ) or (event.type in _JOINING and not subject.emails.isdisjoint(mentions.emails))


def _tells_of(subject: Subject, text: RejectedText) -> bool:
    """Whether a rejected event is about the person, or names them in text that can't be read."""
    if subject.owns(user_id=text.user_id, anonymous_id=text.anonymous_id):
        return True
    for payload in (text.payload, text.original_payload or b""):
        mentions = read_mentions(text.type, payload)
        if not subject.emails.isdisjoint(mentions.emails) or subject.owns(
            user_id="", anonymous_id="", previous_id=mentions.previous_id
        ):
            return True
        if not text.user_id and any(one in payload for one in _quoted(subject)):
            return True
    return False


def _quoted(subject: Subject) -> Iterable[bytes]:
    for one in (*subject.user_ids, *subject.anonymous_ids, *subject.emails):
        yield msgspec.json.encode(one)


def _exported_event(event: StoredEvent) -> bytes:
    return msgspec.json.encode(
        {
            "uid": event.uid,
            "message_id": event.message_id,
            "type": EventType(event.type).name.lower(),
            "name": event.name,
            "user_id": event.user_id,
            "anonymous_id": event.anonymous_id,
            "occur_time": event.occur_time,
            "receive_time": event.receive_time,
            "payload": msgspec.Raw(event.payload),
            "enrichment": msgspec.Raw(event.enrichment or b"null"),
        }
    )


def _exported_rejection(text: RejectedText) -> bytes:
    return msgspec.json.encode(
        {
            "user_id": text.user_id,
            "anonymous_id": text.anonymous_id,
            "payload": text.payload.decode(errors="replace"),
            "original_payload": (
                text.original_payload.decode(errors="replace") if text.original_payload else None
            ),
            "arrival": msgspec.Raw(text.arrival),
        }
    )


def _cut(rows: list[tuple[int, bytes]]) -> tuple[list[tuple[int, bytes]], bool]:
    """As many rows as fit a page, and at least one; and whether any were left out."""
    size = 0
    for place, (_, row) in enumerate(rows):
        size += len(row)
        if place and size > _PAGE_BYTES:
            return rows[:place], True
    return rows, False


def _shard_of_id(event_id: int) -> int:
    return event_id >> append.POSITION_BITS


def _until() -> float:
    """When to end the work of this call, by the monotonic clock."""
    remaining = get_call().remaining_seconds()
    return time.monotonic() + (
        _NO_DEADLINE_SECONDS if remaining is None else remaining - _RESERVE_SECONDS
    )
