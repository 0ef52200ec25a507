"""Answers the RPCs about a person: what is held, told, or no longer held of them."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from typing import Any

import msgspec

from common.context import get_call
from common.db import Database, database_now
from common.errors import InvalidRequest
from common.page_token import PageTokens, read_page_size
from services.query import change_repository, repository
from services.query.identities import anonymous_subject, user_subject
from services.query.questions import check_store
from shoptrail.privacy.v1 import subject_pb2
from shoptrail.query.v1 import query_pb2

_MOST_IDS = 1000
_RESERVE_SECONDS = 0.5
_LOOK_AGAIN_SECONDS = 0.05
# A copy that has said nothing for so long is away, and follows before it answers again.
_AWAY = timedelta(minutes=2)
_DROPPED_ROWS = 1000
_TOLD_OF_SESSIONS = (
    *("start_time", "end_time", "hit_count", "page_count", "action_count"),
    *("entry_page", "exit_page", "campaign", "referrer"),
)
_PAGE_SIZE, _LARGEST_PAGE_SIZE = 200, 1000


class SubjectAnswers:
    """Answers requests about a person of a store."""

    def __init__(self, database: Database, *, page_tokens: PageTokens) -> None:
        self._database = database
        self._page_tokens = page_tokens

    async def count(self, request: query_pb2.CountSubjectRequest) -> query_pb2.CountSubjectResponse:
        """Answer `CountSubject`."""
        _check(request.store_uid, request.subject)
        found = await self._count(request.store_uid, request.subject)
        return query_pb2.CountSubjectResponse(found=_as_counts(found))

    async def erase(self, request: query_pb2.EraseSubjectRequest) -> query_pb2.EraseSubjectResponse:
        """Answer `EraseSubject`."""
        _check(request.store_uid, request.subject)
        goals = {one.shard: one.number for one in request.changes}
        until = time.monotonic() + (get_call().remaining_seconds() or 5.0) - _RESERVE_SECONDS
        while not await self._has_followed(goals):
            if time.monotonic() >= until:
                return query_pb2.EraseSubjectResponse(done=False)
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        while await self._drop_replaced():
            if time.monotonic() >= until:
                return query_pb2.EraseSubjectResponse(done=False)
        async with self._database.begin() as transaction:
            live = await repository.find_live_generation(transaction)
            await repository.lock_generation(transaction, live)
            await change_repository.forget_subject(
                transaction, request.store_uid, **_ids_of(request.subject)
            )
        left = await self._count(request.store_uid, request.subject)
        return query_pb2.EraseSubjectResponse(done=not any(left.values()), left=_as_counts(left))

    async def export(
        self, request: query_pb2.ExportSubjectRequest
    ) -> query_pb2.ExportSubjectResponse:
        """Answer `ExportSubject`."""
        _check(request.store_uid, request.subject)
        page_size = read_page_size(
            request.page_size, default=_PAGE_SIZE, largest=_LARGEST_PAGE_SIZE
        )
        place = self._page_tokens.open(request)
        browsers = sorted(
            (anonymous_subject(one).hex(), one) for one in request.subject.anonymous_ids
        )
        async with self._database.read() as snapshot:
            live = await repository.find_live_generation(snapshot)
            found = await change_repository.list_sessions(
                snapshot,
                live,
                request.store_uid,
                [bytes.fromhex(digest) for digest, _ in browsers],
                after=(
                    (bytes.fromhex(place[0]), datetime.fromisoformat(place[1])) if place else None
                ),
                limit=page_size + 1,
            )
        names = dict(browsers)
        page = found[:page_size]
        rows = [
            msgspec.json.encode(
                {
                    "anonymous_id": names[subject.hex()],
                    **{name: getattr(session, name) for name in _TOLD_OF_SESSIONS},
                }
            )
            for subject, session in page
        ]
        response = query_pb2.ExportSubjectResponse(
            parts=[subject_pb2.SubjectRows(name="sessions", rows=rows)] if rows else []
        )
        if len(found) > page_size:
            subject, session = page[-1]
            response.next_page_token = self._page_tokens.seal(
                request, [subject.hex(), session.start_time.isoformat()]
            )
        return response

    async def _has_followed(self, goals: dict[int, int]) -> bool:
        """Whether figures, listing and columns are all as these changes left the log."""
        async with self._database.read() as snapshot:
            for generation in await repository.list_current_generations(snapshot):
                for cursor in await repository.list_cursors(snapshot, generation):
                    if cursor.change_number < goals.get(cursor.shard, 0):
                        return False
            now = await database_now(snapshot)
            copies = await change_repository.list_copies(snapshot, seen_after=now - _AWAY)
        return all(copy.change_number >= goals.get(copy.shard, 0) for copy in copies)

    async def _drop_replaced(self) -> int:
        async with self._database.begin() as transaction:
            return await repository.drop_replaced_figures(transaction, limit=_DROPPED_ROWS)

    async def _count(self, store_uid: str, subject: subject_pb2.Subject) -> dict[str, int]:
        async with self._database.read() as snapshot:
            return await change_repository.count_subject(snapshot, store_uid, **_ids_of(subject))


def _ids_of(subject: subject_pb2.Subject) -> dict[str, Any]:
    """The person's ids, and what stands for them in the figures."""
    return {
        "user_ids": subject.user_ids,
        "anonymous_ids": subject.anonymous_ids,
        "users": [user_subject(one) for one in subject.user_ids],
        "browsers": [anonymous_subject(one) for one in subject.anonymous_ids],
    }


def _check(store_uid: str, subject: subject_pb2.Subject) -> None:
    violations: dict[str, str] = {}
    check_store(store_uid, violations)
    count = len(subject.user_ids) + len(subject.anonymous_ids) + len(subject.emails)
    if not 1 <= count <= _MOST_IDS:
        violations["subject"] = f"must have 1 to {_MOST_IDS} ids"
    if violations:
        raise InvalidRequest(violations)


def _as_counts(found: dict[str, int]) -> list[subject_pb2.TableCount]:
    return [
        subject_pb2.TableCount(table=f"query.{table}", row_count=count)
        for table, count in sorted(found.items())
        if count
    ]
