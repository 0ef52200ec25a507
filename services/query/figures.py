"""Brings the figures up to date with facts: the SQL that writes them.

Functions take the caller's transaction and never end it. The caller holds the generation's
lock, so what is read here stays as it is until it is written. Rows are written in the order
of their keys. What is derived from many facts, such as an order or a session, is made anew
whenever one of them comes to light, so the sequence in which they do doesn't matter.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

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
from services.query.payload import digest_of, text_in
from services.query.projection import ALIAS, IDENTIFY, PAGE_TYPES, TRACK, Fact
from services.query.quarters import quarter_of
from services.query.sessions import (
    LONGEST_PAUSE,
    Hit,
    HitKind,
    Session,
    cut_into_sessions,
    plan_recut,
)
from services.query.tables import (
    hits,
    orders,
    owners,
    product_sales,
    products,
    representatives,
    revenue,
    sessions,
    tallies,
    visits,
)
from services.query.tallies import named_product, tallies_of_action, tallies_of_page

_MICROSECOND = timedelta(microseconds=1)
_SESSION_COLUMNS = ("store_uid", "subject", *Session.__struct_fields__)
_SESSION_CHANGES = [
    column.name for column in sessions.c if not column.primary_key and column.name != "quarter"
]


async def add_facts(transaction: AsyncConnection, generation: int, facts: Sequence[Fact]) -> None:
    """Bring all figures of a generation up to date with facts that it doesn't hold yet."""
    figures = _Figures(transaction, generation)
    await figures.add_tallies(facts)
    await figures.add_visits(facts)
    await figures.add_ownerships(facts)
    await figures.add_aliases(facts)
    await figures.add_hits(facts)
    await figures.add_orders(facts)
    await figures.add_product_names(facts)


@dataclass(frozen=True, slots=True)
class _Figures:
    """The figures of one generation, in a transaction."""

    _transaction: AsyncConnection
    _generation: int

    async def add_tallies(self, facts: Sequence[Fact]) -> None:
        counted: Counter[tuple[str, int, int, str]] = Counter()
        for fact in facts:
            event = fact.event
            kind, quarter = event.type, quarter_of(event.occur_time)
            counted[event.store_uid, kind, quarter, event.name] += 1
            if kind in PAGE_TYPES:
                found = tallies_of_page(fact)
            elif kind == TRACK:
                found = tallies_of_action(event.name, fact.payload)
            else:
                continue
            for measure, name in found:
                counted[event.store_uid, measure, quarter, name] += 1
        await bulk.put(
            self._transaction,
            tallies,
            [
                (self._generation, _store(store_uid), measure, quarter, name.encode(), tally)
                for (store_uid, measure, quarter, name), tally in sorted(counted.items())
            ],
            add=["tally"],
        )

    async def add_visits(self, facts: Sequence[Fact]) -> None:
        seen = {
            (fact.event.store_uid, quarter_of(fact.event.occur_time), subject)
            for fact in facts
            if (subject := fact.user or fact.anonymous) is not None
        }
        await bulk.put(
            self._transaction,
            visits,
            [
                (self._generation, _store(store_uid), quarter, subject)
                for store_uid, quarter, subject in sorted(seen)
            ],
        )

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
        for store, subject, representative in await bulk.find(
            self._transaction,
            representatives,
            ("store_uid", "subject", "representative"),
            generation=self._generation,
            key="subject",
            keys={(store, user) for store in pairs for pair in pairs[store] for user in pair},
        ):
            known[store][subject] = representative
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

    async def add_hits(self, facts: Sequence[Fact]) -> None:
        new: defaultdict[Key, list[Hit]] = defaultdict(list)
        for fact in facts:
            if fact.anonymous is not None:
                new[_store(fact.event.store_uid), fact.anonymous].append(_hit_of(fact))
        if not new:
            return
        known = await self._sessions_of(new)
        gone: list[tuple[Key, Session]] = []
        made: list[tuple[Key, Session]] = []
        by_key = sorted(new.items())
        for key, new_hits in by_key:
            if len(new_hits) > 1:
                new_hits.sort(key=lambda hit: hit.place)
            plan = plan_recut(known.get(key, ()), new_hits)
            replayed = new_hits
            if plan.changed:
                old_hits = await self._hits_of(key, plan.changed)
                replayed = sorted([*old_hits, *new_hits], key=lambda hit: hit.place)
            cut = cut_into_sessions(replayed, after=plan.kept)
            before = {session.start: session for session in plan.changed}
            if plan.kept is not None:
                before[plan.kept.start] = plan.kept
            if before:
                after = {session.start for session in cut}
                gone += [(key, session) for start, session in before.items() if start not in after]
            made += [(key, session) for session in cut if before.get(session.start) != session]
        await self._drop_sessions(gone)
        await bulk.put(
            self._transaction,
            sessions,
            [self._as_row(key, session) for key, session in made],
            replace=_SESSION_CHANGES,
        )
        await bulk.put(
            self._transaction,
            hits,
            [
                (
                    self._generation,
                    *key,
                    time_text(hit.time),
                    hit.mark,
                    int(hit.kind),
                    hit.page.encode(),
                    hit.campaign.encode(),
                    hit.referrer.encode(),
                )
                for key, new_hits in by_key
                for hit in new_hits
            ],
        )

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
            encoded = msgspec.msgpack.encode(order)
            rows.append((self._generation, *key, order_ids[key].encode(), encoded))
        await bulk.put(self._transaction, orders, rows, replace=["told"])
        await bulk.put(self._transaction, revenue, sums.of_revenue(), add=_REVENUE_SUMS)
        await bulk.put(self._transaction, product_sales, sums.of_products(), add=_SALES_SUMS)

    async def add_product_names(self, facts: Sequence[Fact]) -> None:
        names: dict[Key, tuple[datetime, bytes, str]] = {}
        for fact in facts:
            event = fact.event
            if event.type != TRACK:
                continue
            found = named_product(event.name, fact.payload)
            if found is not None and found[1]:
                product_id, name = found
                key = _store(event.store_uid), product_id.encode()
                told = event.occur_time, fact.mark, name
                names[key] = max(told, names.get(key, told))
        if not names:
            return
        known = {
            (store, product_id): (bulk.read_time(time), mark, name.decode())
            for store, product_id, time, mark, name in await bulk.find(
                self._transaction,
                products,
                ("store_uid", "product_id", "name_time", "name_mark", "name"),
                generation=self._generation,
                key="product_id",
                keys=names,
            )
        }
        await bulk.put(
            self._transaction,
            products,
            [
                (self._generation, *key, name.encode(), time_text(time), mark)
                for key, (time, mark, name) in sorted(names.items())
                if (time, mark, name) > known.get(key, (time, b"", ""))
            ],
            replace=["name", "name_time", "name_mark"],
        )

    async def _sessions_of(self, new: dict[Key, list[Hit]]) -> dict[Key, list[Session]]:
        """The sessions that end late enough to matter to the hits, by subject, sorted."""
        earliest = min([hit.time for found in new.values() for hit in found])
        found: defaultdict[Key, list[Session]] = defaultdict(list)
        for store, subject, start, mark, end, *rest in await bulk.find(
            self._transaction,
            sessions,
            _SESSION_COLUMNS,
            generation=self._generation,
            key="subject",
            keys=new,
            condition=f"end_time >= '{time_text(earliest - LONGEST_PAUSE)}'",
        ):
            end_mark, hit_count, page_count, action_count, entry, exit_, campaign, referrer = rest
            found[store, subject].append(
                Session(
                    bulk.read_time(start),
                    mark,
                    bulk.read_time(end),
                    end_mark,
                    hit_count,
                    page_count,
                    action_count,
                    entry.decode(),
                    exit_.decode(),
                    campaign.decode(),
                    referrer.decode(),
                )
            )
        for some in found.values():
            some.sort(key=lambda session: session.start)
        return found

    async def _hits_of(self, key: Key, changed: Sequence[Session]) -> list[Hit]:
        """The hits that sessions, which follow one another, were made of."""
        if not changed:
            return []
        column = hits.c
        rows = await self._transaction.execute(
            select(
                column.occur_time,
                column.mark,
                column.kind,
                column.page,
                column.campaign,
                column.referrer,
            ).where(
                column.generation == self._generation,
                column.store_uid == format_uid("sto", key[0]),
                column.subject == key[1],
                column.occur_time >= changed[0].start_time,
                column.occur_time <= changed[-1].end_time,
            )
        )
        found = [Hit(row[0], row[1], HitKind(row[2]), row[3], row[4], row[5]) for row in rows]
        return [hit for hit in found if changed[0].start <= hit.place <= changed[-1].end]

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

    def _as_row(self, key: Key, session: Session) -> Row:
        return (
            self._generation,
            *key,
            time_text(session.start_time),
            session.start_mark,
            time_text(session.end_time),
            session.end_mark,
            session.hit_count,
            session.page_count,
            session.action_count,
            session.entry_page.encode(),
            session.exit_page.encode(),
            session.campaign.encode(),
            session.referrer.encode(),
            quarter_of(session.start_time),
            (session.end_time - session.start_time) // _MICROSECOND,
            int(session.bounced),
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


def _hit_of(fact: Fact) -> Hit:
    kind = HitKind.OTHER
    if fact.event.type in PAGE_TYPES:
        kind = HitKind.PAGE
    elif fact.event.type == TRACK:
        kind = HitKind.ACTION
    return Hit(
        time=fact.event.occur_time,
        mark=fact.mark,
        kind=kind,
        page=fact.page if kind is HitKind.PAGE else "",
        campaign=fact.campaign,
        referrer=fact.referrer,
    )


def _store(store_uid: str) -> bytes:
    return parse_uid("sto", store_uid)
