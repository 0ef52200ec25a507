"""Brings figures up to date with events that were overwritten in the log.

What was counted of an event as it was is taken back, and what is left of it is counted. An
erased event has lost its people, so visits, sessions and ids go; its order has another id; and
where reports break down by a text, that has become another one. Totals and money stay.

Functions take the caller's transaction and never end it. The caller holds the generation's
lock, and has brought the listing up to date.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Table, and_, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from common.digest import digest_of
from common.uid import parse_uid
from services.query import bulk
from services.query.bulk import Row
from services.query.identities import Ownership, anonymous_subject, user_subject
from services.query.orders import TELLINGS, Order, Statement
from services.query.payload import read_payload, text_in
from services.query.projection import ALIAS, IDENTIFY, PAGE_TYPES, TRACK, Fact, type_name
from services.query.quarters import QUARTERS_A_DAY, quarter_of
from services.query.session_sums import SessionChanges, session_row
from services.query.sessions import Session, cut_into_sessions, hits_of
from services.query.tables import (
    orders,
    owners,
    recorded_events,
    representatives,
    sessions,
    tallies,
    tally_days,
    visits,
)
from services.query.tallies import tallies_of_action, tallies_of_page

_MOST_KEYS = 300

Key: TypeAlias = tuple[str, bytes]
"""A store, and what stands for a subject in it."""


@dataclass(frozen=True, slots=True)
class Amendment:
    """An event as it was when it was counted, and as it is now."""

    old: Fact
    new: Fact


async def amend(
    transaction: AsyncConnection, generation: int, amendments: Sequence[Amendment]
) -> None:
    """Bring a generation's figures, which have counted these events, up to date."""
    figures = _Amended(transaction, generation, amendments)
    await figures.amend_tallies()
    await figures.drop_visits()
    await figures.amend_owners()
    await figures.drop_representatives()
    await figures.drop_hits()
    await figures.rename_orders()


async def rename_orders(
    transaction: AsyncConnection, generation: int, amendments: Sequence[Amendment]
) -> None:
    """Let a generation's orders be known by their other ids, and change nothing else."""
    await _Amended(transaction, generation, amendments).rename_orders()


@dataclass(frozen=True, slots=True)
class _Amended:
    _transaction: AsyncConnection
    _generation: int
    _amendments: Sequence[Amendment]

    async def amend_tallies(self) -> None:
        counted = _count(one.new for one in self._amendments)
        counted.subtract(_count(one.old for one in self._amendments))
        by_day: Counter[tuple[str, int, int, str]] = Counter()
        for (store_uid, measure, quarter, name), change in counted.items():
            by_day[store_uid, measure, quarter // QUARTERS_A_DAY, name] += change
        await self._change(tallies, "quarter", counted)
        await self._change(tally_days, "day", by_day)

    async def _change(
        self, table: Table, period: str, counted: Counter[tuple[str, int, int, str]]
    ) -> None:
        """Change tallies, which stand for a period, by what was counted."""
        changes = sorted((key, change) for key, change in counted.items() if change)
        if not changes:
            return
        rows: list[Row] = [
            (self._generation, parse_uid("sto", store_uid), measure, number, name.encode(), change)
            for (store_uid, measure, number, name), change in changes
        ]
        await bulk.put(self._transaction, table, rows, add=["tally"])
        column = table.c
        # The name of a row may be a text of the person's, so none may stay that counts nothing.
        fewer: defaultdict[tuple[str, int], list[tuple[int, str]]] = defaultdict(list)
        for (store_uid, measure, number, name), change in changes:
            if change < 0:
                fewer[store_uid, measure].append((number, name))
        for (store_uid, measure), places in fewer.items():
            for some in _in_batches(places):
                # By each column, as neither database looks tuples up by an index. Whatever else
                # that meets counts nothing either.
                await self._transaction.execute(
                    delete(table).where(
                        column.generation == self._generation,
                        column.store_uid == store_uid,
                        column.measure == measure,
                        column[period].in_(sorted({number for number, _ in some})),
                        column.name.in_(sorted({name for _, name in some})),
                        column.tally == 0,
                    )
                )

    async def drop_visits(self) -> None:
        gone: defaultdict[Key, set[int]] = defaultdict(set)
        for one in self._amendments:
            subject = _subject_of(one.old)
            if subject and subject != _subject_of(one.new):
                quarter = quarter_of(one.old.event.occur_time)
                gone[one.old.event.store_uid, subject].add(quarter)
        column = visits.c
        for (store_uid, subject), quarters in sorted(gone.items()):
            for some in _in_batches(sorted(quarters)):
                await self._transaction.execute(
                    delete(visits).where(
                        column.generation == self._generation,
                        column.store_uid == store_uid,
                        column.subject == subject,
                        column.quarter.in_(some),
                    )
                )

    async def amend_owners(self) -> None:
        claimed: defaultdict[str, dict[str, set[bytes]]] = defaultdict(lambda: defaultdict(set))
        for one in self._amendments:
            browser = _claimed_by(one.old)
            if browser and browser != _claimed_by(one.new):
                user = user_subject(one.old.event.user_id)
                claimed[one.old.event.store_uid][browser].add(user)
        column = owners.c
        for store_uid, users in sorted(claimed.items()):
            whose = and_(column.generation == self._generation, column.store_uid == store_uid)
            subjects = {anonymous_subject(browser): browser for browser in users}
            browsers: set[str] = set()
            for some in _in_batches(sorted(subjects)):
                rows = await self._transaction.execute(
                    select(column.subject, column.user).where(whose, column.subject.in_(some))
                )
                # Another's claim that holds was the earlier one, and holds on.
                lost = [
                    bytes(subject)
                    for subject, user in rows
                    if bytes(user) in users[subjects[bytes(subject)]]
                ]
                browsers |= {subjects[subject] for subject in lost}
                await self._transaction.execute(
                    delete(owners).where(whose, column.subject.in_(lost))
                )
            claims = await self._claims_to(store_uid, browsers) if browsers else {}
            if claims:
                await self._transaction.execute(
                    insert(owners),
                    [
                        {
                            "generation": self._generation,
                            "store_uid": store_uid,
                            "subject": subject,
                            "user": claim.user,
                            "identify_time": claim.time,
                        }
                        for subject, claim in sorted(claims.items())
                    ],
                )

    async def _claims_to(self, store_uid: str, browsers: Collection[str]) -> dict[bytes, Ownership]:
        """Who else identified themselves there first, by the listing.

        Where to look there is told by the sessions: they have all that was done on the browser.
        """
        column = recorded_events.c
        listed = select(
            column.type, column.user_id, column.anonymous_id, column.occur_time, column.payload
        ).where(column.store_uid == store_uid, column.user_id != "")
        rows = await self._transaction.execute(
            select(sessions.c.session).where(
                sessions.c.generation == self._generation,
                sessions.c.store_uid == store_uid,
                sessions.c.subject.in_([anonymous_subject(one) for one in sorted(browsers)]),
            )
        )
        made_of = (msgspec.msgpack.decode(row[0], type=Session) for row in rows)
        times = sorted({hit.time for session in made_of for hit in hits_of(session)})
        found: list[Any] = []
        for some in _in_batches(times):
            found += await self._transaction.execute(
                listed.where(
                    column.name == type_name(IDENTIFY),
                    column.occur_time.in_(some),
                    column.type == IDENTIFY,
                    column.anonymous_id.in_(sorted(browsers)),
                )
            )
        found += await self._transaction.execute(
            listed.where(column.name == type_name(ALIAS), column.type == ALIAS)
        )
        claims: dict[bytes, Ownership] = {}
        for kind, user_id, anonymous_id, time, payload in found:
            browser = anonymous_id if kind == IDENTIFY else read_payload(payload).previous_id
            if browser in browsers:
                subject = anonymous_subject(browser)
                claim = Ownership(time, user_subject(user_id))
                claims[subject] = min(claim, claims.get(subject, claim))
        return claims

    async def drop_representatives(self) -> None:
        users: defaultdict[str, set[bytes]] = defaultdict(set)
        for one in self._amendments:
            old, new = one.old, one.new
            if old.event.type == ALIAS and old.payload.previous_id != new.payload.previous_id:
                users[old.event.store_uid] |= {
                    user_subject(old.payload.previous_id),
                    user_subject(old.event.user_id),
                }
        column = representatives.c
        for store_uid, subjects in sorted(users.items()):
            for some in _in_batches(sorted(subjects)):
                for either in (column.subject, column.representative):
                    await self._transaction.execute(
                        delete(representatives).where(
                            column.generation == self._generation,
                            column.store_uid == store_uid,
                            either.in_(some),
                        )
                    )

    async def drop_hits(self) -> None:
        gone: defaultdict[Key, set[tuple[datetime, bytes]]] = defaultdict(set)
        for one in self._amendments:
            event = one.old.event
            if event.anonymous_id and event.anonymous_id != one.new.event.anonymous_id:
                key = event.store_uid, anonymous_subject(event.anonymous_id)
                gone[key].add((event.occur_time, one.old.mark))
        if not gone:
            return
        changes = SessionChanges(self._generation)
        for (store_uid, subject), places in sorted(gone.items()):
            await self._cut_anew(store_uid, subject, places, changes)
        await changes.write(self._transaction)
        await changes.drop_empty(self._transaction)

    async def _cut_anew(
        self,
        store_uid: str,
        subject: bytes,
        gone: Collection[tuple[datetime, bytes]],
        changes: SessionChanges,
    ) -> None:
        """Make a subject's sessions from the hits that are left; notes what their sums gain."""
        column = sessions.c
        whose = and_(
            column.generation == self._generation,
            column.store_uid == store_uid,
            column.subject == subject,
        )
        found = await self._transaction.execute(select(column.session).where(whose))
        before = [msgspec.msgpack.decode(row[0], type=Session) for row in found]
        left = [hit for one in before for hit in hits_of(one) if hit.place not in gone]
        after = cut_into_sessions(sorted(left, key=lambda hit: hit.place))
        await self._transaction.execute(delete(sessions).where(whose))
        rows = [
            session_row(self._generation, (parse_uid("sto", store_uid), subject), session)
            for session in after
        ]
        await bulk.put(self._transaction, sessions, rows)
        for some, sign in ((before, -1), (after, 1)):
            for session in some:
                changes.count(parse_uid("sto", store_uid), session, sign=sign)

    async def rename_orders(self) -> None:
        """Let orders be known by their other ids. What is told of them stays, and so their sums."""
        names: dict[Key, str] = {}
        marks: dict[bytes, bytes] = {}
        refunds: defaultdict[Key, dict[str, str]] = defaultdict(dict)
        for one in self._amendments:
            old_id, new_id = _order_of(one.old), _order_of(one.new)
            if old_id and new_id:
                key = one.old.event.store_uid, digest_of(old_id)
                names[key] = new_id
                marks[one.old.mark] = one.new.mark
                refund = text_in(one.old.payload.properties, "refund_id")
                # Other events of the order may have been overwritten before, with its row.
                for known_key in (key, (key[0], digest_of(new_id))):
                    refunds[known_key][refund] = text_in(one.new.payload.properties, "refund_id")
        if not names:
            return
        ids = {(store, digest_of(new_id)): new_id for (store, _), new_id in names.items()}
        column = orders.c
        found: dict[Key, Any] = {}
        keys: defaultdict[str, list[bytes]] = defaultdict(list)
        for store_uid, order_key in sorted({*names, *ids}):
            keys[store_uid].append(order_key)
        for store_uid, of_store in keys.items():
            for some in _in_batches(of_store):
                known = and_(
                    column.generation == self._generation,
                    column.store_uid == store_uid,
                    column.order_key.in_(some),
                )
                rows = await self._transaction.execute(
                    select(column.store_uid, column.order_key, column.order_id, column.told).where(
                        known
                    )
                )
                found |= {(row.store_uid, row.order_key): row for row in rows}
                await self._transaction.execute(delete(orders).where(known))
        rows_left: dict[Key, dict[str, Any]] = {}
        for (store_uid, old_key), row in sorted(found.items()):
            new_id = names.get((store_uid, old_key)) or row.order_id
            key = store_uid, digest_of(new_id)
            told = msgspec.msgpack.decode(row.told, type=Order)
            order = retold(told, marks, refunds[store_uid, old_key])
            rows_left[key] = {
                "generation": self._generation,
                "store_uid": store_uid,
                "order_key": key[1],
                "order_id": new_id,
                "told": msgspec.msgpack.encode(order),
            }
        if rows_left:
            await self._transaction.execute(
                insert(orders), [row for _, row in sorted(rows_left.items())]
            )


def _count(facts: Iterable[Fact]) -> Counter[tuple[str, int, int, str]]:
    counted: Counter[tuple[str, int, int, str]] = Counter()
    for fact in facts:
        event = fact.event
        quarter = quarter_of(event.occur_time)
        counted[event.store_uid, event.type, quarter, event.name] += 1
        found: Iterable[tuple[int, str]] = ()
        if event.type in PAGE_TYPES:
            found = tallies_of_page(fact)
        elif event.type == TRACK:
            found = tallies_of_action(event.name, fact.payload)
        for measure, name in found:
            counted[event.store_uid, measure, quarter, name] += 1
    return counted


def _subject_of(fact: Fact) -> bytes | None:
    if fact.event.user_id:
        return user_subject(fact.event.user_id)
    return anonymous_subject(fact.event.anonymous_id) if fact.event.anonymous_id else None


def _claimed_by(fact: Fact) -> str:
    """The anonymous id that the event gives to its user; empty if none."""
    if not fact.event.user_id:
        return ""
    if fact.event.type == IDENTIFY:
        return fact.event.anonymous_id
    return fact.payload.previous_id if fact.event.type == ALIAS else ""


def _order_of(fact: Fact) -> str:
    """The id of the order that the event tells of; empty if of none."""
    if fact.event.type != TRACK or fact.event.name not in TELLINGS:
        return ""
    return text_in(fact.payload.properties, "order_id")


def retold(
    order: Order,
    marks: Mapping[bytes, bytes],
    refunds: Mapping[str, str],
    *,
    nobody: Collection[bytes] = (),
) -> Order:
    """The order with other marks and refund ids; of `nobody`'s, by old mark, the person goes."""

    def as_now(said: Statement) -> Statement:
        origin = said.origin
        if said.mark in nobody:
            origin = msgspec.structs.replace(origin, user=b"", anonymous=b"")
        return msgspec.structs.replace(
            said,
            mark=marks.get(said.mark, said.mark),
            refund_id=refunds.get(said.refund_id, said.refund_id),
            origin=origin,
        )

    def by_trust(statements: dict[int, Statement]) -> dict[int, Statement]:
        return {trust: as_now(said) for trust, said in statements.items()}

    refunded = {
        trust: {
            f"#{said.refund_id}" if said.refund_id else said.mark.hex(): said
            for said in map(as_now, statements.values())
        }
        for trust, statements in order.refunded.items()
    }
    return Order(
        completed=by_trust(order.completed),
        updated=by_trust(order.updated),
        cancelled=by_trust(order.cancelled),
        refunded=refunded,
        completion_counts=order.completion_counts,
    )


def without_people(order: Order) -> Order:
    """The order, which doesn't say any more who told of it."""
    statements = [
        *order.completed.values(),
        *order.updated.values(),
        *order.cancelled.values(),
        *(said for by_refund in order.refunded.values() for said in by_refund.values()),
    ]
    return retold(order, {}, {}, nobody={said.mark for said in statements})


def _in_batches(keys: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(keys), _MOST_KEYS):
        yield keys[start : start + _MOST_KEYS]
