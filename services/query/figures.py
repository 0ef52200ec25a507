"""Brings the figures up to date with facts: the SQL that writes them.

Functions take the caller's transaction and never end it. The caller holds the generation's
lock, so what is read here stays as it is until it is written. Rows are written in the order
of their keys. What is derived from many facts, such as an order or a session, is made anew
whenever one of them comes to light, so the sequence in which they do doesn't matter.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Table, delete, insert, select, tuple_, update
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

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
from services.query.payload import campaign_of, digest_of, page_path_of, referrer_of, text_in
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

_MOST_KEYS = 400
_MICROSECOND = timedelta(microseconds=1)
_SESSION_FIELDS = [field.name for field in fields(Session)]

Key: TypeAlias = tuple[str, bytes]
"""A store, and what stands for a subject or an order in it."""
Row: TypeAlias = dict[str, Any]


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
            quarter = quarter_of(event.occur_time)
            counted[event.store_uid, event.type, quarter, event.name] += 1
            if event.type in PAGE_TYPES:
                found = tallies_of_page(fact.payload)
            elif event.type == TRACK:
                found = tallies_of_action(event.name, fact.payload)
            else:
                continue
            for measure, name in found:
                counted[event.store_uid, measure, quarter, name] += 1
        await self._put(
            tallies,
            [
                {
                    "store_uid": store_uid,
                    "measure": measure,
                    "quarter": quarter,
                    "name": name,
                    "tally": tally,
                }
                for (store_uid, measure, quarter, name), tally in sorted(counted.items())
            ],
            add=["tally"],
        )

    async def add_visits(self, facts: Sequence[Fact]) -> None:
        seen = {
            (fact.event.store_uid, quarter_of(fact.event.occur_time), subject)
            for fact in facts
            if (subject := _subject_of(fact)) is not None
        }
        await self._put(
            visits,
            [
                {"store_uid": store_uid, "quarter": quarter, "subject": subject}
                for store_uid, quarter, subject in sorted(seen)
            ],
        )

    async def add_ownerships(self, facts: Sequence[Fact]) -> None:
        claims: dict[Key, Ownership] = {}
        for fact in facts:
            event = fact.event
            anonymous_id = ""
            if event.type == IDENTIFY:
                anonymous_id = event.anonymous_id
            elif event.type == ALIAS:
                anonymous_id = fact.payload.previous_id
            if anonymous_id and event.user_id:
                key = event.store_uid, anonymous_subject(anonymous_id)
                claim = Ownership(event.occur_time, user_subject(event.user_id))
                claims[key] = min(claim, claims.get(key, claim))
        known = {
            (row.store_uid, row.subject): Ownership(row.identify_time, row.user)
            for row in await self._rows_of(owners, "subject", claims)
        }
        await self._put(
            owners,
            [
                {
                    "store_uid": store_uid,
                    "subject": subject,
                    "user": claim.user,
                    "identify_time": claim.time,
                }
                for (store_uid, subject), claim in sorted(claims.items())
                if (store_uid, subject) not in known or claim < known[store_uid, subject]
            ],
            replace=["user", "identify_time"],
        )

    async def add_aliases(self, facts: Sequence[Fact]) -> None:
        pairs: defaultdict[str, list[tuple[bytes, bytes]]] = defaultdict(list)
        for fact in facts:
            event = fact.event
            if event.type == ALIAS and event.user_id and fact.payload.previous_id:
                pair = user_subject(fact.payload.previous_id), user_subject(event.user_id)
                pairs[event.store_uid].append(pair)
        users = {(store, user) for store in pairs for pair in pairs[store] for user in pair}
        known: defaultdict[str, dict[bytes, bytes]] = defaultdict(dict)
        for row in await self._rows_of(representatives, "subject", users):
            known[row.store_uid][row.subject] = row.representative
        column = representatives.c
        for store_uid in sorted(pairs):
            replaced = join(pairs[store_uid], known[store_uid])
            for old, new in sorted(replaced.items()):
                await self._transaction.execute(
                    update(representatives)
                    .where(
                        column.generation == self._generation,
                        column.store_uid == store_uid,
                        column.representative == old,
                    )
                    .values(representative=new)
                )
            await self._put(
                representatives,
                [
                    {"store_uid": store_uid, "subject": old, "representative": new}
                    for old, new in sorted(replaced.items())
                ],
                replace=["representative"],
            )

    async def add_hits(self, facts: Sequence[Fact]) -> None:
        new: defaultdict[Key, list[Hit]] = defaultdict(list)
        for fact in facts:
            if fact.event.anonymous_id:
                key = fact.event.store_uid, anonymous_subject(fact.event.anonymous_id)
                new[key].append(_hit_of(fact))
        if not new:
            return
        known = await self._sessions_of(new)
        gone: list[tuple[Key, Session]] = []
        made: list[tuple[Key, Session]] = []
        for key, new_hits in sorted(new.items()):
            new_hits.sort(key=lambda hit: hit.place)
            plan = plan_recut(known.get(key, ()), new_hits)
            old_hits = await self._hits_of(key, plan.changed)
            replayed = sorted([*old_hits, *new_hits], key=lambda hit: hit.place)
            cut = cut_into_sessions(replayed, after=plan.kept)
            before = {session.start: session for session in plan.changed}
            if plan.kept is not None:
                before[plan.kept.start] = plan.kept
            after = {session.start for session in cut}
            gone += [(key, session) for start, session in before.items() if start not in after]
            made += [(key, session) for session in cut if before.get(session.start) != session]
        await self._drop_sessions(gone)
        await self._put(
            sessions,
            [_as_row(key, session) for key, session in made],
            replace=[
                column.name
                for column in sessions.c
                if not column.primary_key and column.name != "quarter"
            ],
        )
        rows = [
            {
                "generation": self._generation,
                "store_uid": store_uid,
                "subject": subject,
                "occur_time": hit.time,
                "mark": hit.mark,
                "kind": hit.kind,
                "page": hit.page,
                "campaign": hit.campaign,
                "referrer": hit.referrer,
            }
            for (store_uid, subject), new_hits in sorted(new.items())
            for hit in new_hits
        ]
        await self._transaction.execute(insert(hits), rows)

    async def add_orders(self, facts: Sequence[Fact]) -> None:
        told: defaultdict[Key, list[tuple[Telling, Fact]]] = defaultdict(list)
        order_ids: dict[Key, str] = {}
        for fact in facts:
            telling = TELLINGS.get(fact.event.name) if fact.event.type == TRACK else None
            order_id = text_in(fact.payload.properties, "order_id")
            if telling and order_id:
                key = fact.event.store_uid, digest_of(order_id)
                told[key].append((telling, fact))
                order_ids[key] = order_id
        if not told:
            return
        known = {
            (row.store_uid, row.order_key): row.told
            for row in await self._rows_of(orders, "order_key", told)
        }
        rows: list[Row] = []
        sums = _Sums()
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
            rows.append(
                {
                    "store_uid": key[0],
                    "order_key": key[1],
                    "order_id": order_ids[key],
                    "told": msgspec.msgpack.encode(order),
                }
            )
        await self._put(orders, rows, replace=["told"])
        await self._put(revenue, list(sums.of_revenue()), add=_REVENUE_SUMS)
        await self._put(product_sales, list(sums.of_products()), add=_SALES_SUMS)

    async def add_product_names(self, facts: Sequence[Fact]) -> None:
        names: dict[tuple[str, str], tuple[datetime, bytes, str]] = {}
        for fact in facts:
            event = fact.event
            if event.type != TRACK:
                continue
            found = named_product(event.name, fact.payload)
            if found is not None and found[1]:
                product_id, name = found
                key = event.store_uid, product_id
                told = event.occur_time, fact.mark, name
                names[key] = max(told, names.get(key, told))
        known = {
            (row.store_uid, row.product_id): (row.name_time, row.name_mark, row.name)
            for row in await self._rows_of(products, "product_id", names)
        }
        await self._put(
            products,
            [
                {
                    "store_uid": store_uid,
                    "product_id": product_id,
                    "name": name,
                    "name_time": time,
                    "name_mark": mark,
                }
                for (store_uid, product_id), (time, mark, name) in sorted(names.items())
                if (time, mark, name) > known.get((store_uid, product_id), (time, b"", ""))
            ],
            replace=["name", "name_time", "name_mark"],
        )

    async def _sessions_of(self, new: dict[Key, list[Hit]]) -> dict[Key, list[Session]]:
        """The sessions that end late enough to matter to the hits, by subject, sorted."""
        earliest = min(hit.time for found in new.values() for hit in found)
        found: defaultdict[Key, list[Session]] = defaultdict(list)
        for row in await self._rows_of(
            sessions, "subject", new, sessions.c.end_time >= earliest - LONGEST_PAUSE
        ):
            session = Session(*(getattr(row, name) for name in _SESSION_FIELDS))
            found[row.store_uid, row.subject].append(session)
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
                column.store_uid == key[0],
                column.subject == key[1],
                column.occur_time >= changed[0].start_time,
                column.occur_time <= changed[-1].end_time,
            )
        )
        found = [Hit(row[0], row[1], HitKind(row[2]), row[3], row[4], row[5]) for row in rows]
        return [hit for hit in found if changed[0].start <= hit.place <= changed[-1].end]

    async def _drop_sessions(self, gone: Sequence[tuple[Key, Session]]) -> None:
        column = sessions.c
        for (store_uid, subject), session in gone:
            await self._transaction.execute(
                delete(sessions).where(
                    column.generation == self._generation,
                    column.store_uid == store_uid,
                    column.subject == subject,
                    column.start_time == session.start_time,
                    column.start_mark == session.start_mark,
                )
            )

    async def _rows_of(
        self,
        table: Table,
        key: str,
        keys: Collection[tuple[str, Any]],
        *conditions: Any,
    ) -> list[Any]:
        """The generation's rows with these stores and keys."""
        found: list[Any] = []
        for some in _in_batches(sorted(keys)):
            statement = select(table).where(
                table.c.generation == self._generation,
                tuple_(table.c.store_uid, table.c[key]).in_(some),
                *conditions,
            )
            found += await self._transaction.execute(statement)
        return found

    async def _put(
        self,
        table: Table,
        rows: Sequence[Row],
        *,
        add: Sequence[str] = (),
        replace: Sequence[str] = (),
    ) -> None:
        """Insert rows; of those that are there, add to some columns, and replace others."""
        if not rows:
            return
        if self._transaction.dialect.name == "sqlite":
            on_sqlite = sqlite.insert(table)
            changes = {name: table.c[name] + on_sqlite.excluded[name] for name in add}
            changes |= {name: on_sqlite.excluded[name] for name in replace}
            statement: Any = (
                on_sqlite.on_conflict_do_update(set_=changes)
                if changes
                else on_sqlite.on_conflict_do_nothing()
            )
        else:
            on_mysql = mysql.insert(table)
            changes = {name: table.c[name] + on_mysql.inserted[name] for name in add}
            changes |= {name: on_mysql.inserted[name] for name in replace}
            statement = on_mysql.on_duplicate_key_update(
                changes or {"generation": table.c.generation}
            )
        await self._transaction.execute(
            statement, [{"generation": self._generation, **row} for row in rows]
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

    def __init__(self) -> None:
        self._revenue: defaultdict[tuple[str, int, str, int], Counter[str]]
        self._revenue = defaultdict(Counter)
        self._products: defaultdict[tuple[str, int, str, str], Counter[str]]
        self._products = defaultdict(Counter)

    def count(self, store_uid: str, order: Order, *, sign: int) -> None:
        """Count an order, or with a negative sign take it away."""
        entries = entries_of(order)
        for entry in entries:
            count, amount = _REVENUE_COLUMNS[entry.telling]
            sums = self._revenue[
                store_uid, quarter_of(entry.time), entry.currency, int(entry.trust)
            ]
            sums[count] += sign
            sums[amount] += sign * entry.amount
        if not entries:
            return
        sale = entries[0]
        lines = lines_of(order)
        for product_id in {line.product_id for line in lines}:
            of_product = [line for line in lines if line.product_id == product_id]
            sums = self._products[store_uid, quarter_of(sale.time), product_id, sale.currency]
            sums["order_count"] += sign
            sums["quantity"] += sign * sum(line.quantity for line in of_product)
            sums["revenue"] += sign * sum(line.revenue for line in of_product)

    def of_revenue(self) -> Iterator[Row]:
        for (store_uid, quarter, currency, trust), sums in sorted(self._revenue.items()):
            if any(sums.values()):
                yield {
                    "store_uid": store_uid,
                    "quarter": quarter,
                    "currency": currency,
                    "trust": trust,
                    **{name: sums[name] for name in _REVENUE_SUMS},
                }

    def of_products(self) -> Iterator[Row]:
        for (store_uid, quarter, product_id, currency), sums in sorted(self._products.items()):
            if any(sums.values()):
                yield {
                    "store_uid": store_uid,
                    "quarter": quarter,
                    "product_id": product_id,
                    "currency": currency,
                    **{name: sums[name] for name in _SALES_SUMS},
                }


def _subject_of(fact: Fact) -> bytes | None:
    """Who did it, as far as the event itself says."""
    if fact.event.user_id:
        return user_subject(fact.event.user_id)
    if fact.event.anonymous_id:
        return anonymous_subject(fact.event.anonymous_id)
    return None


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
        page=page_path_of(fact.payload),
        campaign=campaign_of(fact.payload),
        referrer=referrer_of(fact.payload),
    )


def _as_row(key: Key, session: Session) -> Row:
    return {
        "store_uid": key[0],
        "subject": key[1],
        **{name: getattr(session, name) for name in _SESSION_FIELDS},
        "quarter": quarter_of(session.start_time),
        "duration": (session.end_time - session.start_time) // _MICROSECOND,
        "bounced": session.bounced,
    }


def _in_batches(keys: Sequence[tuple[str, Any]]) -> Iterator[Sequence[tuple[str, Any]]]:
    for start in range(0, len(keys), _MOST_KEYS):
        yield keys[start : start + _MOST_KEYS]
