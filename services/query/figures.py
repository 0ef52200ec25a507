"""Brings the figures up to date with facts: the SQL that writes them.

Functions take the caller's transaction and never end it. The caller holds the generation's
lock, so what is read here stays as it is until it is written. Rows are written in the order
of their keys. What is derived from many facts, such as an order or a session, is made anew
whenever one of them comes to light, so the sequence in which they do doesn't matter.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeAlias

import msgspec
from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncConnection

from common.digest import digest_of
from common.uid import format_uid, parse_uid
from services.query import bulk
from services.query.bulk import Key, Row, time_text
from services.query.identities import Ownership, anonymous_subject, join, user_subject
from services.query.orders import (
    TELLINGS,
    Order,
    Telling,
    Trust,
    entries_of,
    lines_of,
    read_statement,
)
from services.query.payload import text_in
from services.query.projection import ALIAS, IDENTIFY, PAGE_TYPES, TRACK, Fact
from services.query.quarters import QUARTERS_A_DAY, quarter_of
from services.query.session_sums import SessionChanges, session_row
from services.query.sessions import (
    LONGEST_PAUSE,
    Hit,
    HitKind,
    Session,
    cut_into_sessions,
    hits_of,
    plan_recut,
)
from services.query.tables import (
    orders,
    owners,
    product_sales,
    products,
    representatives,
    revenue,
    sessions,
    tallies,
    tally_days,
    visits,
)
from services.query.tallies import (
    OF_PRODUCTS,
    named_product,
    tallies_of_action,
    tallies_of_page,
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Session)
_SESSION_CHANGES = [
    column.name for column in sessions.c if not column.primary_key and column.name != "quarter"
]
_place_of = attrgetter("time", "mark")
_MOST_REMEMBERED = 200_000
# After so many events others have their turn: a page takes longer than an answer may.
_TURN = 250

_Placed: TypeAlias = tuple[Fact, bytes, int]
"""A fact, the store that it is of, and the quarter in which it happened."""


class Memory:
    """What a generation's figures are known to hold, so that it needn't be read again.

    For who adds facts one batch after the other, and nobody else in between. Must be forgotten
    when a transaction was not committed.
    """

    def __init__(self) -> None:
        self.sessions: dict[Key, Session] = {}
        """The latest of each subject."""
        self.product_names: dict[Key, tuple[int, bytes]] = {}
        """The quarter in which a product was named last, and how."""

    def trim(self) -> None:
        """Forget what would take too much room."""
        for known in (self.sessions, self.product_names):
            if len(known) > _MOST_REMEMBERED:
                known.clear()


async def add_facts(
    transaction: AsyncConnection,
    generation: int,
    facts: Sequence[Fact],
    memory: Memory | None = None,
) -> None:
    """Bring all figures of a generation up to date with facts that it doesn't hold yet."""
    memory = memory or Memory()
    memory.trim()
    figures = _Figures(transaction, generation, memory)
    placed = _place(facts)
    await figures.add_tallies(placed)
    await figures.add_visits(placed)
    await figures.add_ownerships(facts)
    await figures.add_aliases(facts)
    await figures.add_hits(placed)
    await figures.add_orders(facts)


@dataclass(frozen=True, slots=True)
class _Figures:
    """The figures of one generation, in a transaction."""

    _transaction: AsyncConnection
    _generation: int
    _memory: Memory

    async def add_tallies(self, placed: Sequence[_Placed]) -> None:
        """Also the names of products, which stand beside what is counted."""
        counted: defaultdict[tuple[bytes, int, int], defaultdict[str, int]]
        counted = defaultdict(lambda: defaultdict(int))
        named: set[tuple[bytes, str, int, str]] = set()
        found: Iterable[tuple[int, str]]
        for number, (fact, store, quarter) in enumerate(placed):
            if not number % _TURN:
                await asyncio.sleep(0)
            event = fact.event
            kind, name = event.type, event.name
            counted[store, kind, quarter][name] += 1
            if kind == TRACK:
                if product := named_product(name, fact.payload):
                    counted[store, OF_PRODUCTS[name], quarter][product[0]] += 1
                    # By day, so that a name that stays isn't written more often.
                    named.add((store, product[0], quarter // QUARTERS_A_DAY, product[1]))
                    continue
                found = tallies_of_action(name, fact.payload)
            elif kind in PAGE_TYPES:
                found = tallies_of_page(fact)
            else:
                continue
            for measure, key in found:
                counted[store, measure, quarter][key] += 1
        by_day: defaultdict[tuple[bytes, int, int], defaultdict[str, int]]
        by_day = defaultdict(lambda: defaultdict(int))
        for (store, measure, quarter), names in counted.items():
            of_day = by_day[store, measure, quarter // QUARTERS_A_DAY]
            for name, tally in names.items():
                of_day[name] += tally
        for table, sums in ((tallies, counted), (tally_days, by_day)):
            rows: list[Row] = [
                (self._generation, *group, name.encode(), tally)
                for group, names in sorted(sums.items())
                for name, tally in sorted(names.items())
            ]
            await bulk.put(self._transaction, table, rows, add=["tally"])
        await self._add_product_names(named)

    async def add_visits(self, placed: Sequence[_Placed]) -> None:
        seen = {
            (self._generation, store, quarter, subject)
            for fact, store, quarter in placed
            if (subject := fact.user or fact.anonymous) is not None
        }
        await bulk.put(self._transaction, visits, sorted(seen))

    async def add_ownerships(self, facts: Sequence[Fact]) -> None:
        claims: dict[Key, Ownership] = {}
        for fact in facts:
            subject = None
            if fact.event.type == IDENTIFY:
                subject = fact.anonymous
            elif fact.event.type == ALIAS and fact.payload.previous_id:
                subject = anonymous_subject(fact.payload.previous_id)
            if subject is not None and fact.user is not None:
                key = _store(fact.event.store_uid), subject
                claim = Ownership(fact.event.occur_time, fact.user)
                claims[key] = min(claim, claims.get(key, claim))
        if not claims:
            return
        known = {
            (store, subject): Ownership(bulk.read_time(time), user)
            for store, subject, user, time in await bulk.find(
                self._transaction,
                owners,
                ("store_uid", "subject", "user", "identify_time"),
                generation=self._generation,
                key="subject",
                keys=claims,
            )
        }
        await bulk.put(
            self._transaction,
            owners,
            [
                (self._generation, *key, claim.user, time_text(claim.time))
                for key, claim in sorted(claims.items())
                if key not in known or claim < known[key]
            ],
            replace=["user", "identify_time"],
        )

    async def add_aliases(self, facts: Sequence[Fact]) -> None:
        pairs: defaultdict[bytes, list[tuple[bytes, bytes]]] = defaultdict(list)
        for fact in facts:
            previous_id = fact.payload.previous_id
            if fact.event.type == ALIAS and fact.user is not None and previous_id:
                pair = user_subject(previous_id), fact.user
                pairs[_store(fact.event.store_uid)].append(pair)
        if not pairs:
            return
        known: defaultdict[bytes, dict[bytes, bytes]] = defaultdict(dict)
        for of_store, subject, representative in await bulk.find(
            self._transaction,
            representatives,
            ("store_uid", "subject", "representative"),
            generation=self._generation,
            key="subject",
            keys={(store, user) for store in pairs for pair in pairs[store] for user in pair},
        ):
            known[of_store][subject] = representative
        column = representatives.c
        for store in sorted(pairs):
            replaced = join(pairs[store], known[store])
            for old, new in sorted(replaced.items()):
                await self._transaction.execute(
                    update(representatives)
                    .where(
                        column.generation == self._generation,
                        column.store_uid == format_uid("sto", store),
                        column.representative == old,
                    )
                    .values(representative=new)
                )
            await bulk.put(
                self._transaction,
                representatives,
                [(self._generation, store, old, new) for old, new in sorted(replaced.items())],
                replace=["representative"],
            )

    async def add_hits(self, placed: Sequence[_Placed]) -> None:
        new: defaultdict[Key, list[Hit]] = defaultdict(list)
        for fact, store, _ in placed:
            if fact.anonymous is not None:
                new[store, fact.anonymous].append(_hit_of(fact))
        if not new:
            return
        known = await self._sessions_of(new)
        changes = SessionChanges(self._generation)
        gone: list[tuple[Key, Session]] = []
        made: list[tuple[Key, Session]] = []
        remembered = self._memory.sessions
        for number, (key, new_hits) in enumerate(sorted(new.items())):
            if not number % _TURN:
                await asyncio.sleep(0)
            if len(new_hits) > 1:
                new_hits.sort(key=_place_of)
            sessions_before = known.get(key, ())
            if not sessions_before or new_hits[0].place > sessions_before[-1].end:
                # As nearly always: what happened follows what is known.
                before = sessions_before[-1] if sessions_before else None
                cut = cut_into_sessions(new_hits, after=before)
                remembered[key] = cut[-1]
                if before is not None:
                    grown = cut.pop(0)
                    if grown is not before:
                        changes.count(key[0], before, sign=-1)
                        changes.count(key[0], grown, sign=1)
                        made.append((key, grown))
                for session in cut:
                    changes.count(key[0], session, sign=1)
                    made.append((key, session))
                continue
            plan = plan_recut(sessions_before, new_hits)
            replayed = new_hits
            if plan.changed:
                old_hits = [hit for session in plan.changed for hit in hits_of(session)]
                replayed = sorted([*old_hits, *new_hits], key=_place_of)
            cut = cut_into_sessions(replayed, after=plan.kept)
            old = {session.start: session for session in plan.changed}
            if plan.kept is not None:
                old[plan.kept.start] = plan.kept
            after = {session.start: session for session in cut}
            gone += [(key, session) for start, session in old.items() if start not in after]
            made += [(key, session) for session in cut if old.get(session.start) != session]
            for session in old.values():
                changes.count(key[0], session, sign=-1)
            for session in cut:
                changes.count(key[0], session, sign=1)
            latest = cut[-1]
            if sessions_before[-1].start not in old:
                latest = max(latest, sessions_before[-1], key=lambda session: session.start)
            remembered[key] = latest
        await self._drop_sessions(gone)
        await bulk.put(
            self._transaction,
            sessions,
            [session_row(self._generation, key, session) for key, session in made],
            replace=_SESSION_CHANGES,
        )
        await changes.write(self._transaction)

    async def add_orders(self, facts: Sequence[Fact]) -> None:
        told: defaultdict[Key, list[tuple[Telling, Fact]]] = defaultdict(list)
        order_ids: dict[Key, str] = {}
        for fact in facts:
            telling = TELLINGS.get(fact.event.name) if fact.event.type == TRACK else None
            if telling and (order_id := text_in(fact.payload.properties, "order_id")):
                key = _store(fact.event.store_uid), digest_of(order_id)
                told[key].append((telling, fact))
                order_ids[key] = order_id
        if not told:
            return
        known = {
            (store, order_key): found
            for store, order_key, found in await bulk.find(
                self._transaction,
                orders,
                ("store_uid", "order_key", "told"),
                generation=self._generation,
                key="order_key",
                keys=told,
            )
        }
        rows: list[Row] = []
        sums = _Sums(self._generation)
        for key, statements in sorted(told.items()):
            order = msgspec.msgpack.decode(known[key], type=Order) if key in known else Order()
            sums.count(key[0], order, sign=-1)
            for telling, fact in statements:
                order.add(
                    telling,
                    read_statement(
                        fact.payload.properties,
                        time=fact.event.occur_time,
                        mark=fact.mark,
                        trust=Trust(fact.event.trust),
                    ),
                )
            sums.count(key[0], order, sign=1)
            encoded = _encoder.encode(order)
            rows.append((self._generation, *key, order_ids[key].encode(), encoded))
        await bulk.put(self._transaction, orders, rows, replace=["told"])
        await bulk.put(self._transaction, revenue, sums.of_revenue(), add=_REVENUE_SUMS)
        await bulk.put(self._transaction, product_sales, sums.of_products(), add=_SALES_SUMS)

    async def _add_product_names(self, named: Iterable[tuple[bytes, str, int, str]]) -> None:
        names: dict[Key, tuple[int, bytes]] = {}
        for store, product_id, day, name in named:
            if name:
                key = store, product_id.encode()
                told = day * QUARTERS_A_DAY, name.encode()
                names[key] = max(told, names.get(key, told))
        remembered = self._memory.product_names
        names = {
            key: told
            for key, told in names.items()
            if key not in remembered or told > remembered[key]
        }
        if not names:
            return
        for store, product_id, quarter, name in await bulk.find(
            self._transaction,
            products,
            ("store_uid", "product_id", "name_quarter", "name"),
            generation=self._generation,
            key="product_id",
            keys=[key for key in names if key not in remembered],
        ):
            remembered[store, product_id] = quarter, name
        later = {
            key: told
            for key, told in names.items()
            if key not in remembered or told > remembered[key]
        }
        await bulk.put(
            self._transaction,
            products,
            [
                (self._generation, *key, name, quarter)
                for key, (quarter, name) in sorted(later.items())
            ],
            replace=["name", "name_quarter"],
        )
        remembered |= later

    async def _sessions_of(self, new: dict[Key, list[Hit]]) -> dict[Key, Sequence[Session]]:
        """The sessions that end late enough to matter to the hits, by subject, sorted."""
        found: dict[Key, Sequence[Session]] = {}
        unknown: dict[Key, list[Session]] = {}
        remembered = self._memory.sessions
        for key, new_hits in new.items():
            latest = remembered.get(key)
            if latest is not None and all(hit.place > latest.start for hit in new_hits):
                found[key] = (latest,)
            else:
                unknown[key] = []
        if not unknown:
            return found
        earliest = min([hit.time for key in unknown for hit in new[key]])
        for store, subject, session in await bulk.find(
            self._transaction,
            sessions,
            ("store_uid", "subject", "session"),
            generation=self._generation,
            key="subject",
            keys=unknown,
            condition=f"end_time >= '{time_text(earliest - LONGEST_PAUSE)}'",
        ):
            unknown[store, subject].append(_decoder.decode(session))
        for some in unknown.values():
            some.sort(key=lambda session: session.start)
        return found | unknown

    async def _drop_sessions(self, gone: Sequence[tuple[Key, Session]]) -> None:
        column = sessions.c
        for (store, subject), session in gone:
            await self._transaction.execute(
                delete(sessions).where(
                    column.generation == self._generation,
                    column.store_uid == format_uid("sto", store),
                    column.subject == subject,
                    column.start_time == session.start_time,
                    column.start_mark == session.start_mark,
                )
            )


_REVENUE_SUMS = [
    "order_count",
    "gross",
    "refund_count",
    "refunded",
    "cancellation_count",
    "cancelled",
]
_SALES_SUMS = ["order_count", "quantity", "revenue"]
_REVENUE_COLUMNS = {
    Telling.COMPLETED: ("order_count", "gross"),
    Telling.REFUNDED: ("refund_count", "refunded"),
    Telling.CANCELLED: ("cancellation_count", "cancelled"),
}


class _Sums:
    """What the ledger's sums gain and lose."""

    def __init__(self, generation: int) -> None:
        self._generation = generation
        self._revenue: defaultdict[tuple[bytes, int, str, int], Counter[str]]
        self._revenue = defaultdict(Counter)
        self._products: defaultdict[tuple[bytes, int, str, str], Counter[str]]
        self._products = defaultdict(Counter)

    def count(self, store: bytes, order: Order, *, sign: int) -> None:
        """Count an order, or with a negative sign take it away."""
        entries = entries_of(order)
        for entry in entries:
            count, amount = _REVENUE_COLUMNS[entry.telling]
            sums = self._revenue[store, quarter_of(entry.time), entry.currency, int(entry.trust)]
            sums[count] += sign
            sums[amount] += sign * entry.amount
        if not entries:
            return
        sale = entries[0]
        lines = lines_of(order)
        for product_id in {line.product_id for line in lines}:
            of_product = [line for line in lines if line.product_id == product_id]
            sums = self._products[store, quarter_of(sale.time), product_id, sale.currency]
            sums["order_count"] += sign
            sums["quantity"] += sign * sum(line.quantity for line in of_product)
            sums["revenue"] += sign * sum(line.revenue for line in of_product)

    def of_revenue(self) -> list[Row]:
        return [
            (self._generation, *key, *(sums[name] for name in _REVENUE_SUMS))
            for key, sums in sorted(self._revenue.items())
            if any(sums.values())
        ]

    def of_products(self) -> list[Row]:
        return [
            (
                self._generation,
                store,
                quarter,
                product_id.encode(),
                currency,
                *(sums[name] for name in _SALES_SUMS),
            )
            for (store, quarter, product_id, currency), sums in sorted(self._products.items())
            if any(sums.values())
        ]


def _place(facts: Iterable[Fact]) -> list[_Placed]:
    return [
        (fact, _store(fact.event.store_uid), quarter_of(fact.event.occur_time)) for fact in facts
    ]


def _hit_of(fact: Fact) -> Hit:
    event = fact.event
    kind, page = HitKind.OTHER, ""
    if event.type == TRACK:
        kind = HitKind.ACTION
    elif event.type in PAGE_TYPES:
        kind, page = HitKind.PAGE, fact.page
    return Hit(event.occur_time, fact.mark, kind, page, fact.campaign, fact.referrer)


def _store(store_uid: str) -> bytes:
    return parse_uid("sto", store_uid)
