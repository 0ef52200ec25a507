"""`EventColumns` in DuckDB, embedded: a file of its own, or memory."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import duckdb
import msgspec

from common.digest import digest_of
from common.log import describe_failure
from common.uid import parse_uid
from services.query.amendments import retold
from services.query.carts import CART_MOVES, NO_CHANGE, CartMove, read_cart_change
from services.query.columns import (
    Attribution,
    BreakdownRow,
    CartReport,
    CartState,
    CartSums,
    Cohort,
    Dimension,
    EventDescription,
    Filter,
    FunnelRow,
    Occurrences,
    Property,
    PropertyDescription,
    Scope,
    SoldOrder,
    Step,
    Touch,
    TrendRow,
    Visitors,
)
from services.query.freshness import Cursor
from services.query.identities import anonymous_subject, join, user_subject
from services.query.losses import Loss, find_losses, numbering_of
from services.query.orders import (
    TELLINGS,
    Order,
    Origin,
    Statement,
    Telling,
    Trust,
    entries_of,
    origin_of,
    read_statement,
)
from services.query.payload import text_in
from services.query.projection import ALIAS, IDENTIFY, TRACK, Fact
from services.query.quarters import QUARTER, quarter_of

log = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(9999, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MOST_PROPERTIES = 100
_JSON_TYPES = {
    "ARRAY": "array",
    "BOOLEAN": "boolean",
    "OBJECT": "object",
    "VARCHAR": "string",
    "BIGINT": "number",
    "UBIGINT": "number",
    "HUGEINT": "number",
    "DOUBLE": "number",
}
_COLUMNS = {
    "store": "UUID",
    "id": "BIGINT",
    "time": "BIGINT",
    "mark": "UUID",
    "type": "UTINYINT",
    "name": "VARCHAR",
    "browser": "UUID",
    "account": "UUID",
    "claimed": "UUID",
    "alias": "UUID",
    "page": "VARCHAR",
    "campaign": "VARCHAR",
    "referrer": "VARCHAR",
    "device": "VARCHAR",
    "country": "VARCHAR",
    "agent": "VARCHAR",
    "consent": "VARCHAR",
    "trust": "UTINYINT",
    "move": "UTINYINT",
    "pieces": "INTEGER",
    "amount": "BIGINT",
    "currency": "VARCHAR",
    "properties": "VARCHAR",
    "numbered_by": "UUID",
    "number": "BIGINT",
}
_ORDER_COLUMNS = {
    "store": "UUID",
    "order_key": "UUID",
    "told": "BLOB",
    "order_id": "VARCHAR",
    # Null as long as nobody said that it was completed.
    "time": "BIGINT",
    "trust": "UTINYINT",
    "currency": "VARCHAR",
    "gross": "BIGINT",
    "taken": "BIGINT",
    "told_count": "INTEGER",
    "account": "UUID",
    "browser": "UUID",
    "payment_method": "VARCHAR",
    "agent": "VARCHAR",
    "consent": "VARCHAR",
}
# The number goes up with each change, so a file of before is not read but made anew.
_EVENTS, _ORDERS, _CURSORS = "events_3", "orders_3", "cursors_4"
# Who did anything in which quarter of an hour: follows from the events, of which there are many
# more. May hold the same more than once.
_VISITS = "visits_1"
# Whether the file may still hold what was overwritten since it was written whole.
_RESIDUE = "residue_1"
_TABLES = (_EVENTS, _VISITS, _ORDERS, _CURSORS)
_VISITS_OF_EVENTS = (
    f"SELECT DISTINCT store, time // {QUARTER // timedelta(microseconds=1)} AS quarter,"  # noqa: S608
    f" coalesce(account, browser) AS subject FROM {_EVENTS}"
    " WHERE coalesce(account, browser) IS NOT NULL"
)
_PREPARE = (
    "SET threads = 2",
    f"CREATE TABLE IF NOT EXISTS {_EVENTS}"
    f" ({', '.join(f'{name} {kind}' for name, kind in _COLUMNS.items())})",
    f"CREATE TABLE IF NOT EXISTS {_VISITS} AS {_VISITS_OF_EVENTS}",
    f"CREATE TABLE IF NOT EXISTS {_ORDERS}"
    f" ({', '.join(f'{name} {kind}' for name, kind in _ORDER_COLUMNS.items())})",
    f"CREATE TABLE IF NOT EXISTS {_CURSORS}"
    " (shard INTEGER PRIMARY KEY, position BIGINT, as_of BIGINT, change BIGINT)",
)
_READ_PAGE = (
    f"INSERT INTO {_EVENTS} SELECT * FROM"  # noqa: S608 - names of columns only
    " read_json($path, format = 'newline_delimited',"
    f" columns = {{{', '.join(f'{name}: {kind!r}' for name, kind in _COLUMNS.items())}}})"
)
_PUT_ORDERS = f"INSERT INTO {_ORDERS} SELECT " + ", ".join(
    f"unnest(${name}::{kind}[])" for name, kind in _ORDER_COLUMNS.items()
)
# Who did it: what `identities` says, worked out from the events themselves. `claimed` is the
# anonymous id that an event gives to its account.
_PEOPLE = f"""
owners AS (
    SELECT claimed AS browser, min({{'time': time, 'account': account}}).account AS account
    FROM {_EVENTS} WHERE store = $store AND claimed IS NOT NULL AND account IS NOT NULL
    GROUP BY claimed
),
joined AS (
    SELECT unnest($replaced::UUID[]) AS account, unnest($representatives::UUID[]) AS representative
)"""  # noqa: S608 - names of columns only
_DONE = f"""{_PEOPLE},
done AS (
    SELECT e.*, coalesce(j.representative, e.account, o.account, e.browser) AS person
    FROM {_EVENTS} e
    LEFT JOIN owners o ON e.account IS NULL AND o.browser = e.browser
    LEFT JOIN joined j ON j.account = coalesce(e.account, o.account)
    WHERE e.store = $store AND e.time < $end
)"""  # noqa: S608 - names of columns only

_PERIODS = """
periods AS (SELECT unnest($starts::BIGINT[]) AS start, unnest(range($periods)) AS period)"""
_WHOLE, _BEFORE = -2, -1
"""What stands for the whole range, and for the range before, beside the periods' indices."""
_SIGN = f"CASE move WHEN {CartMove.ADDED:d} THEN 1 WHEN {CartMove.REMOVED:d} THEN -1 ELSE 0 END"


# What DuckDB says of a file that is in use.
_OF_ANOTHER_PROCESS = "Could not set lock"

# As the sender wrote them, so that a catalogue tells numbers from texts.
_numbers = msgspec.json.Encoder(decimal_format="number")


class DuckColumns:
    """Keeps the events in a file, which no other process may have open; without one, in memory.

    With a file, `memory_mib` is how much memory they take at most: what is asked less often is
    read again, and what a question needs beyond it is put on disk beside the file meanwhile.
    A file that can't be read is made anew, empty.
    """

    def __init__(self, path: Path | None = None, *, memory_mib: int = 512) -> None:
        self._path = path
        self._memory_mib = memory_mib
        # As they are in the file: to ask DuckDB takes milliseconds.
        self._cursors: dict[int, Cursor] = {}
        self._connection = self._open()
        self._writing = asyncio.Lock()
        self._asking: set[asyncio.Future[list[Any]]] = set()
        self._answering = asyncio.Event()
        self._answering.set()

    async def cursors(self) -> list[Cursor]:
        return list(self._cursors.values())

    async def add(self, cursor: Cursor, facts: Sequence[Fact]) -> None:
        await self._write(self._add, cursor, facts)

    async def amend(self, shard: int, change_number: int, facts: Sequence[Fact]) -> None:
        await self._write(self._amend, shard, change_number, facts)

    async def clear(self) -> None:
        await self._write(self._clear)

    async def funnel(
        self,
        scope: Scope,
        steps: Sequence[Step],
        *,
        window: timedelta,
        breakdown: Dimension | Property | None,
        limit: int,
    ) -> list[FunnelRow]:
        question = await self._question(scope)
        conditions = [question.condition_of(step) for step in steps]
        taken = [f"({condition}) AS is{number}" for number, condition in enumerate(conditions)]
        stages = ["stage0 AS (SELECT *, CASE WHEN is0 THEN time END AS start0 FROM hits)"]
        # The latest start that leads to an event is the best: if that is too long ago, all are.
        stages += [
            f"stage{number} AS (SELECT *, CASE WHEN is{number} AND"  # noqa: S608 - numbers only
            f" time - max(start{number - 1}) OVER before <= {window // _MICROSECOND}"
            f" THEN max(start{number - 1}) OVER before END AS start{number}"
            f" FROM stage{number - 1} WINDOW before AS (PARTITION BY person ORDER BY time, mark"
            " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING))"
            for number in range(1, len(steps))
        ]
        reached = [f"count(start{number}) > 0 AS reached{number}" for number in range(len(steps))]
        counts = [f"count(*) FILTER (reached{number})" for number in range(len(steps))]
        rows = await self._ask(
            f"""
            WITH {_DONE},
            hits AS (
                SELECT person, time, mark, {question.value_of(breakdown)} AS value,
                    {", ".join(taken)}
                FROM done WHERE person IS NOT NULL AND {question.conditions}
                    AND ({" OR ".join(conditions)})
            ),
            {", ".join(stages)},
            people AS (
                SELECT person, {", ".join(reached)},
                    arg_min(value, {{'time': time, 'mark': mark}}) FILTER (is0) AS value
                FROM stage{len(steps) - 1} GROUP BY person
            )
            SELECT value, {", ".join(counts)} FROM people WHERE reached0
            GROUP BY value ORDER BY 2 DESC, value LIMIT $limit
            """,  # noqa: S608 - texts are parameters
            {**question.parameters, "limit": limit},
        )
        return [FunnelRow(value, tuple(found)) for value, *found in rows]

    async def retention(
        self,
        scope: Scope,
        boundaries: Sequence[datetime],
        *,
        first: Step | None,
        again: Step | None,
    ) -> list[Cohort]:
        question = await self._question(scope)
        begun, returned = question.condition_of(first), question.condition_of(again)
        period_count = len(boundaries) - 1
        rows = await self._ask(
            f"""
            WITH {_DONE},
            {_PERIODS},
            begun AS (
                SELECT person, min({{'time': time, 'mark': mark}}) AS place
                FROM done WHERE person IS NOT NULL AND {question.filters} AND {begun}
                GROUP BY person
            ),
            members AS (
                SELECT person, place, period FROM begun
                ASOF JOIN periods ON begun.place.time >= periods.start
                WHERE begun.place.time < $end
            ),
            returned AS (
                SELECT DISTINCT m.person, m.period AS cohort, p.period AS period
                FROM (SELECT * FROM done WHERE {question.conditions} AND {returned}) d
                JOIN members m ON m.person = d.person
                    AND {{'time': d.time, 'mark': d.mark}} > m.place
                ASOF JOIN periods p ON d.time >= p.start
            )
            SELECT period AS cohort, -1 AS later, count(*) FROM members GROUP BY period
            UNION ALL
            SELECT cohort, period - cohort, count(*) FROM returned GROUP BY ALL
            """,  # noqa: S608 - texts are parameters
            {
                **question.parameters,
                **_periods_of(boundaries),
            },
        )
        found = {(cohort, later): count for cohort, later, count in rows}
        return [
            Cohort(
                found.get((cohort, -1), 0),
                tuple(found.get((cohort, later), 0) for later in range(period_count - cohort)),
            )
            for cohort in range(period_count)
        ]

    async def break_down(
        self, scope: Scope, step: Step | None, of: Dimension | Property, *, limit: int
    ) -> list[BreakdownRow]:
        question = await self._question(scope)
        rows = await self._ask(
            f"""
            WITH {_DONE}
            SELECT {question.value_of(of)} AS value, count(*), count(DISTINCT person)
            FROM done WHERE {question.conditions} AND {question.condition_of(step)}
            GROUP BY value ORDER BY 2 DESC, value LIMIT $limit
            """,  # noqa: S608 - texts are parameters
            {**question.parameters, "limit": limit},
        )
        return [BreakdownRow(*row) for row in rows]

    async def timeline(
        self, store_uid: str, subject: bytes, *, after: tuple[datetime, int] | None, limit: int
    ) -> list[tuple[datetime, int]]:
        scope = Scope(store_uid, _EPOCH, _LAST)
        question = await self._question(scope)
        behind = "true"
        parameters = {**question.parameters, "subject": UUID(bytes=subject), "limit": limit}
        if after is not None:
            parameters |= {"time": _as_number(after[0]), "id": after[1]}
            behind = "(time < $time OR (time = $time AND id < $id))"
        rows = await self._ask(
            f"""
            WITH {_DONE},
            known AS (
                SELECT coalesce(min(o.account), $subject) AS account
                FROM owners o WHERE o.browser = $subject
            ),
            whose AS (
                SELECT coalesce(j.representative, known.account) AS person
                FROM known LEFT JOIN joined j ON j.account = known.account
            )
            SELECT time, id FROM done
            WHERE person = (SELECT person FROM whose) AND {question.conditions} AND {behind}
            ORDER BY time DESC, id DESC LIMIT $limit
            """,  # noqa: S608 - texts are parameters
            parameters,
        )
        return [(_as_time(time), identifier) for time, identifier in rows]

    async def trend(
        self,
        scope: Scope,
        boundaries: Sequence[datetime],
        *,
        previous_start: datetime,
        step: Step | None,
        of: Dimension | Property | None,
        limit: int,
    ) -> list[TrendRow]:
        question = await self._question(scope)
        rows = await self._ask(
            f"""
            WITH {_DONE},
            {_PERIODS},
            hits AS MATERIALIZED (
                SELECT value, person, coalesce(period, -1) AS period FROM (
                    SELECT {question.value_of(of)} AS value, person, time FROM done
                    WHERE time >= $previous AND {question.filters} AND {question.condition_of(step)}
                ) d ASOF LEFT JOIN periods ON d.time >= periods.start
            ),
            totals AS (
                SELECT value, count(*) FILTER (period >= 0) AS times,
                    count(DISTINCT person) FILTER (period >= 0) AS people
                FROM hits GROUP BY value {"HAVING times > 0" if of else ""}
                ORDER BY times DESC, value LIMIT $limit
            )
            SELECT value, -2 AS period, times, people FROM totals
            UNION ALL
            SELECT value, period, count(*), count(DISTINCT person)
            FROM hits SEMI JOIN totals USING (value) GROUP BY value, period
            """,  # noqa: S608 - texts are parameters
            {
                **question.parameters_but_start,
                **_periods_of(boundaries),
                "previous": _as_number(previous_start),
                "limit": limit,
            },
        )
        found: defaultdict[str, dict[int, Occurrences]] = defaultdict(dict)
        for value, period, times, people in rows:
            found[value][period] = Occurrences(times, people)
        trends = [
            TrendRow(
                value,
                total=by_period[_WHOLE],
                previous=by_period.get(_BEFORE, Occurrences()),
                periods=[
                    by_period.get(period, Occurrences()) for period in range(len(boundaries) - 1)
                ],
            )
            for value, by_period in found.items()
        ]
        return sorted(trends, key=lambda row: (-row.total.event_count, row.value))

    async def visitors(
        self, store_uid: str, boundaries: Sequence[datetime], *, previous_start: datetime
    ) -> Visitors:
        question = await self._question(Scope(store_uid, previous_start, boundaries[-1]))
        starts = [quarter_of(time) for time in boundaries[:-1]]
        rows = await self._ask(
            f"""
            WITH {_PEOPLE},
            {_PERIODS},
            seen AS (
                SELECT DISTINCT quarter, subject FROM {_VISITS}
                WHERE store = $store AND quarter >= $previous AND quarter < $last
            ),
            -- First who came when, of which there is less to join.
            placed AS (
                SELECT DISTINCT coalesce(period, {_BEFORE}) AS period, subject
                FROM seen ASOF LEFT JOIN periods ON seen.quarter >= periods.start
            ),
            people AS MATERIALIZED (
                SELECT DISTINCT period,
                    coalesce(j.representative, o.account, p.subject) AS person
                FROM placed p
                LEFT JOIN owners o ON o.browser = p.subject
                LEFT JOIN joined j ON j.account = coalesce(o.account, p.subject)
            )
            SELECT period, count(*) FROM people GROUP BY period
            UNION ALL
            SELECT {_WHOLE}, count(DISTINCT person) FROM people WHERE period <> {_BEFORE}
            """,  # noqa: S608 - numbers and names of columns only
            {
                "store": question.parameters["store"],
                "replaced": question.parameters["replaced"],
                "representatives": question.parameters["representatives"],
                "starts": starts,
                "periods": len(starts),
                "previous": quarter_of(previous_start),
                "last": quarter_of(boundaries[-1]),
            },
        )
        found = dict(rows)
        return Visitors(
            [found.get(period, 0) for period in range(len(starts))],
            total=found[_WHOLE],
            previous=found.get(_BEFORE, 0),
        )

    async def carts(
        self,
        scope: Scope,
        boundaries: Sequence[datetime],
        *,
        previous_start: datetime,
        now: datetime,
        idle: timedelta,
        breakdown: Dimension | Property | None,
        limit: int,
    ) -> CartReport:
        # A cart that begins in the range may be ordered after it.
        question = await self._question(replace(scope, end_time=now))
        rows = await self._ask(
            f"""
            WITH {_DONE},
            {_PERIODS},
            moves AS (
                SELECT person, time, mark, move, pieces, amount, currency,
                    {question.value_of(breakdown)} AS value, {question.filters} AS taken,
                    coalesce(sum((move = {CartMove.ORDERED:d})::INT) OVER (
                        PARTITION BY person ORDER BY time, mark
                        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                    ), 0) AS number
                FROM done WHERE move IS NOT NULL AND person IS NOT NULL
            ),
            begun AS (
                SELECT * FROM (
                    SELECT person, number, min({{'time': time, 'mark': mark}}) AS place,
                        arg_min(value, {{'time': time, 'mark': mark}}) AS value,
                        arg_min(taken, {{'time': time, 'mark': mark}}) AS taken
                    FROM moves WHERE move = {CartMove.ADDED:d} GROUP BY person, number
                ) WHERE place.time >= $previous AND place.time < $until AND taken
            ),
            inside AS (
                SELECT m.*, b.place, b.value AS first_value, lead(m.time) OVER (
                    PARTITION BY m.person, m.number ORDER BY m.time, m.mark
                ) AS next_time
                FROM moves m JOIN begun b ON b.person = m.person AND b.number = m.number
                WHERE {{'time': m.time, 'mark': m.mark}} >= b.place
            ),
            carts AS (
                SELECT person, number, min(time) AS begin, any_value(first_value) AS value,
                    bool_or(move = {CartMove.ORDERED:d}) AS ordered,
                    coalesce(bool_or(coalesce(next_time, $end) - time > $idle)
                        FILTER (move <> {CartMove.ORDERED:d}), false) AS paused,
                    sum({_SIGN} * pieces) AS pieces
                FROM inside GROUP BY person, number
            ),
            stated AS (
                SELECT person, number, value, coalesce(period, -1) AS period, CASE
                    WHEN ordered AND paused THEN 'recovered' WHEN ordered THEN 'ordered'
                    WHEN pieces <= 0 THEN 'emptied' WHEN paused THEN 'abandoned' ELSE 'open'
                END AS state
                FROM carts ASOF LEFT JOIN periods ON carts.begin >= periods.start
            ),
            amounts AS (
                SELECT person, number, currency, greatest(sum({_SIGN} * amount), 0) AS amount
                FROM inside WHERE amount > 0 GROUP BY person, number, currency
            )
            SELECT period, value, state, '' AS currency, count(*) AS found
            FROM stated GROUP BY ALL
            UNION ALL
            SELECT period, value, state, currency, sum(amount)
            FROM stated JOIN amounts USING (person, number) GROUP BY ALL HAVING sum(amount) > 0
            """,  # noqa: S608 - texts are parameters
            {
                **question.parameters_but_start,
                **_periods_of(boundaries),
                "previous": _as_number(previous_start),
                "until": _as_number(boundaries[-1]),
                "idle": idle // _MICROSECOND,
            },
        )
        periods: defaultdict[int, _CartRows] = defaultdict(list)
        values: defaultdict[str, _CartRows] = defaultdict(list)
        for period, value, state, currency, found in rows:
            row = CartState(state), currency, int(found)
            periods[period].append(row)
            if period != _BEFORE:
                values[value].append(row)
        by_value = [(value, _cart_sums(of_value)) for value, of_value in values.items()]
        by_value.sort(key=lambda row: (-sum(row[1].counts.values()), row[0]))
        return CartReport(
            [_cart_sums(periods[period]) for period in range(len(boundaries) - 1)],
            _cart_sums(periods[_BEFORE]),
            by_value[:limit],
        )

    async def attribute(
        self,
        scope: Scope,
        touch: Touch,
        of: Dimension | Property,
        *,
        lookback: timedelta,
        trusts: Sequence[int],
        limit: int,
    ) -> list[Attribution]:
        question = await self._question(scope)
        chosen = "arg_min" if touch is Touch.FIRST else "arg_max"
        rows = await self._ask(
            f"""
            WITH {_DONE},
            sold AS (
                SELECT s.order_key, s.time, s.currency, s.gross, s.gross - s.taken AS net,
                    coalesce(j.representative, s.account, o.account, s.browser) AS person
                FROM {_ORDERS} s
                LEFT JOIN owners o ON s.account IS NULL AND o.browser = s.browser
                LEFT JOIN joined j ON j.account = coalesce(s.account, o.account)
                WHERE s.store = $store AND s.time >= {question.start} AND s.time < $end
                    AND s.trust IN (SELECT unnest($trusts::UTINYINT[]))
            ),
            touches AS (
                SELECT person, time, mark, {question.value_of(of)} AS value FROM done
                WHERE time >= {question.start} - $lookback AND value <> '' AND {question.filters}
            ),
            led AS (
                SELECT s.order_key, {chosen}(t.value, {{'time': t.time, 'mark': t.mark}}) AS value
                FROM sold s JOIN touches t ON t.person = s.person
                    AND t.time <= s.time AND t.time >= s.time - $lookback
                GROUP BY s.order_key
            )
            SELECT coalesce(led.value, '') AS led_by, currency, count(*), sum(gross), sum(net)
            FROM sold LEFT JOIN led USING (order_key) GROUP BY led_by, currency
            """,  # noqa: S608 - texts are parameters
            {
                **question.parameters,
                "lookback": lookback // _MICROSECOND,
                "trusts": list(trusts),
            },
        )
        found = [Attribution(value, *rest) for value, *rest in rows]
        counts: Counter[str] = Counter()
        for one in found:
            counts[one.value] += one.order_count
        ranked = sorted(counts, key=lambda value: (-counts[value], value))[:limit]
        places = {value: place for place, value in enumerate(ranked)}
        return sorted(
            (one for one in found if one.value in places),
            key=lambda one: (places[one.value], one.currency),
        )

    async def list_orders(self, scope: Scope, order_keys: Sequence[bytes]) -> list[SoldOrder]:
        rows = await self._ask(
            f"""
            SELECT order_id, time, trust, currency, gross, taken, told_count, payment_method,
                agent, consent
            FROM {_ORDERS}
            WHERE store = $store AND time IS NOT NULL AND (
                (time >= $start AND time < $end) OR order_key IN (SELECT unnest($keys::UUID[]))
            )
            ORDER BY time, order_id
            """,  # noqa: S608 - texts are parameters
            {
                "store": _store(scope.store_uid),
                "start": _as_number(scope.start_time),
                "end": _as_number(scope.end_time),
                "keys": [UUID(bytes=key) for key in order_keys],
            },
        )
        return [SoldOrder(order_id, _as_time(time), *rest) for order_id, time, *rest in rows]

    async def describe(self, scope: Scope, *, limit: int) -> list[EventDescription]:
        previous_start = scope.start_time - (scope.end_time - scope.start_time)
        question = await self._question(scope)
        within = f"time >= {question.start}"
        looked_at = f"store = $store AND time >= $previous AND time < $end AND {question.filters}"
        named = f"""
            named AS (
                SELECT type, name, count(*) FILTER ({within}) AS times,
                    count(*) FILTER (NOT {within}) AS times_before,
                    min(time) FILTER ({within}) AS first, max(time) FILTER ({within}) AS last
                FROM {_EVENTS} WHERE {looked_at}
                GROUP BY type, name ORDER BY times DESC, type, name LIMIT $limit
            )"""  # noqa: S608 - texts are parameters
        # DuckDB refuses parameters that a statement doesn't name.
        parameters = {
            name: value
            for name, value in question.parameters.items()
            if name not in ("replaced", "representatives")
        } | {"limit": limit, "previous": _as_number(previous_start)}
        rows = await self._ask(
            f"WITH {named} SELECT * FROM named ORDER BY times DESC, type, name",  # noqa: S608
            parameters,
        )
        keys = await self._ask(
            f"""
            WITH {named},
            pairs AS (
                SELECT e.type, e.name, {within} AS inside, e.properties,
                    unnest(json_keys(e.properties)) AS key
                FROM {_EVENTS} e JOIN named n ON n.type = e.type AND n.name = e.name
                WHERE {looked_at}
            ),
            typed AS (
                SELECT type, name, key, inside, json_type(
                    properties, '/' || replace(replace(key, '~', '~0'), '/', '~1')) AS kind
                FROM pairs
            )
            SELECT type, name, key, count(*) FILTER (inside) AS times,
                list(DISTINCT kind) FILTER (inside), count(*) FILTER (NOT inside),
                list(DISTINCT kind) FILTER (NOT inside)
            FROM typed GROUP BY type, name, key ORDER BY times DESC, key
            """,  # noqa: S608 - texts are parameters
            parameters,
        )
        properties: defaultdict[tuple[int, str], list[PropertyDescription]] = defaultdict(list)
        for kind, name, key, times, types, times_before, types_before in keys:
            if len(properties[kind, name]) < _MOST_PROPERTIES:
                properties[kind, name].append(
                    PropertyDescription(
                        key, times, _as_types(types), times_before, _as_types(types_before)
                    )
                )
        return [
            EventDescription(
                type=kind,
                name=name,
                event_count=times,
                previous_event_count=times_before,
                first_time=_as_time(first) if first is not None else None,
                last_time=_as_time(last) if last is not None else None,
                properties=properties[kind, name],
            )
            for kind, name, times, times_before, first, last in rows
        ]

    async def losses(self, store_uid: str, boundaries: Sequence[datetime]) -> list[Loss]:
        rows = await self._ask(
            find_losses(_EVENTS),
            {
                "store": _store(store_uid),
                "starts": [_as_number(time) for time in boundaries[:-1]],
                "end": _as_number(boundaries[-1]),
            },
        )
        return [Loss(*row) for row in rows]

    async def tidy(self) -> None:
        if self._path is None:
            return
        async with self._writing:
            if not _has_residue(self._connection):
                return
            await _finish(_copy, self._connection.cursor(), _fresh(self._path))
            self._answering.clear()
            try:
                if self._asking:
                    await asyncio.wait(self._asking)
                self._connection.close()
                _take_over(self._path)
                self._connection = self._open()
            finally:
                self._answering.set()

    async def close(self) -> None:
        try:
            await self.tidy()
        finally:
            async with self._writing:
                if self._asking:  # Of calls that were cancelled, whose threads go on.
                    await asyncio.wait(self._asking)
                self._connection.close()

    def _open(self) -> duckdb.DuckDBPyConnection:
        if self._path is None:
            return _prepared(":memory:")
        try:
            connection = _open(self._path)
            self._cursors = _read_cursors(connection)
        except duckdb.Error as error:
            if _OF_ANOTHER_PROCESS in str(error):
                raise
            log.warning("columns unreadable, made anew", extra=describe_failure(error))
            remove_columns(self._path)
            self._cursors = {}
            connection = _prepared(str(self._path))
        connection.execute(f"SET memory_limit = '{self._memory_mib}MiB'")
        return connection

    async def _write(self, work: Callable[..., None], *arguments: Any) -> None:
        async with self._writing:
            await _finish(work, self._connection.cursor(), *arguments)

    async def _question(self, scope: Scope) -> _Question:
        pairs = await self._ask(
            f"SELECT DISTINCT alias, account FROM {_EVENTS}"  # noqa: S608 - no text in it
            " WHERE store = $store AND alias IS NOT NULL",
            {"store": _store(scope.store_uid)},
        )
        return _Question(scope, join([(one.bytes, other.bytes) for one, other in pairs], {}))

    async def _ask(self, statement: str, parameters: dict[str, Any]) -> list[Any]:
        def ask(cursor: duckdb.DuckDBPyConnection) -> list[Any]:
            with cursor:
                return cursor.execute(statement, parameters).fetchall()

        await self._answering.wait()
        # A cursor is a connection of its own, and sees what was committed when it began. It is
        # made here, since the connection refuses what several threads ask of it at once.
        asking = asyncio.ensure_future(asyncio.to_thread(ask, self._connection.cursor()))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        return await asyncio.shield(asking)

    def _add(
        self, connection: duckdb.DuckDBPyConnection, cursor: Cursor, facts: Sequence[Fact]
    ) -> None:
        with tempfile.NamedTemporaryFile(suffix=".json") as page, connection:
            page.write(msgspec.json.Encoder().encode_lines(_rows_of(facts)))
            page.flush()
            connection.execute("BEGIN")
            if facts:
                # A page of a thousand rows at once: row by row takes ten times as long.
                connection.execute(_READ_PAGE, {"path": page.name})
                ids = [fact.event.id for fact in facts]
                connection.execute(
                    f"INSERT INTO {_VISITS} {_VISITS_OF_EVENTS} AND id BETWEEN $first AND $last",
                    {"first": min(ids), "last": max(ids)},
                )
                _add_orders(connection, facts)
            known = self._cursors.get(cursor.shard)
            if known is not None:
                cursor = replace(cursor, change_number=known.change_number)
            self._commit(connection, cursor)

    def _amend(
        self,
        connection: duckdb.DuckDBPyConnection,
        shard: int,
        change_number: int,
        facts: Sequence[Fact],
    ) -> None:
        with tempfile.NamedTemporaryFile(suffix=".json") as page, connection:
            page.write(msgspec.json.Encoder().encode_lines(_rows_of(facts)))
            page.flush()
            connection.execute("BEGIN")
            if facts:
                _amend_orders(connection, facts)
                changed = {"ids": [fact.event.id for fact in facts]}
                among = "id IN (SELECT unnest($ids::BIGINT[]))"
                connection.execute(
                    f"DELETE FROM {_VISITS} WHERE (store, quarter, subject) IN"  # noqa: S608
                    f" (FROM ({_VISITS_OF_EVENTS} AND {among}))",
                    changed,
                )
                connection.execute(f"DELETE FROM {_EVENTS} WHERE {among}", changed)  # noqa: S608
                connection.execute(_READ_PAGE, {"path": page.name})
                connection.execute(
                    f"INSERT INTO {_VISITS} {_VISITS_OF_EVENTS} AND {among}",
                    changed,
                )
                connection.execute(f"CREATE TABLE IF NOT EXISTS {_RESIDUE} (mark BOOLEAN)")
            self._commit(connection, replace(self._cursors[shard], change_number=change_number))
            # Else the file beside it, which has what was added lately, would keep it.
            connection.execute("CHECKPOINT")

    def _commit(self, connection: duckdb.DuckDBPyConnection, cursor: Cursor) -> None:
        connection.execute(
            f"INSERT OR REPLACE INTO {_CURSORS}"  # noqa: S608 - names only
            " VALUES ($shard, $position, $as_of, $change)",
            {
                "shard": cursor.shard,
                "position": cursor.position,
                "as_of": _as_number(cursor.as_of_time) if cursor.as_of_time else None,
                "change": cursor.change_number,
            },
        )
        connection.execute("COMMIT")
        self._cursors[cursor.shard] = cursor

    def _clear(self, connection: duckdb.DuckDBPyConnection) -> None:
        with connection:
            connection.execute("BEGIN")
            for table in _TABLES:
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names only
            connection.execute(f"CREATE TABLE IF NOT EXISTS {_RESIDUE} (mark BOOLEAN)")
            connection.execute("COMMIT")
            self._cursors = {}
            connection.execute("CHECKPOINT")


async def _finish(work: Callable[..., None], *arguments: Any) -> None:
    """Do work in a thread, to its end even if the caller is cancelled."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])  # The thread goes on with the connection.
        raise


def remove_columns(path: Path) -> None:
    """Remove the file that columns are kept in, and what is beside it, if there is one."""
    for file in (path, _wal(path), _fresh(path), _wal(_fresh(path))):
        file.unlink(missing_ok=True)
    shutil.rmtree(_spilled(path), ignore_errors=True)


def _open(path: Path) -> duckdb.DuckDBPyConnection:
    """Open a file that may be of another version, or hold what was overwritten."""
    if path.exists():
        with duckdb.connect(str(path)) as connection:
            # What a process put there that was killed while it answered.
            shutil.rmtree(_spilled(path), ignore_errors=True)
            tables = _tables_of(connection)
            if _RESIDUE in tables and tables <= {*_TABLES, _RESIDUE}:
                _copy(connection.cursor(), _fresh(path))
        if not tables <= {*_TABLES, _RESIDUE}:  # There nobody would follow who is erased.
            remove_columns(path)
        elif _RESIDUE in tables:
            _take_over(path)
    return _prepared(str(path))


def _prepared(name: str) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(name)
    for statement in _PREPARE:
        connection.execute(statement)
    return connection


def _fresh(path: Path) -> Path:
    return path.with_name(f"{path.name}.fresh")


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")


def _spilled(path: Path) -> Path:
    return path.with_name(f"{path.name}.tmp")


def _copy(connection: duckdb.DuckDBPyConnection, fresh: Path) -> None:
    """Write another file, of what there is: blocks stay as they are when rows go."""
    # Of a process that was killed while it copied.
    fresh.unlink(missing_ok=True)
    _wal(fresh).unlink(missing_ok=True)
    with connection:
        (own,) = connection.execute("SELECT current_database()").fetchall()[0]
        connection.execute("ATTACH $path AS fresh", {"path": str(fresh)})
        try:
            connection.execute("USE fresh")
            for statement in _PREPARE:
                connection.execute(statement)
            for name in _TABLES:
                connection.execute(f'INSERT INTO {name} FROM "{own}".{name}')
        finally:
            connection.execute(f'USE "{own}"')
            connection.execute("DETACH fresh")


def _take_over(path: Path) -> None:
    """Put the other file in the place of the one that nobody has open any more."""
    _fresh(path).replace(path)
    _wal(path).unlink(missing_ok=True)


def _has_residue(connection: duckdb.DuckDBPyConnection) -> bool:
    return _RESIDUE in _tables_of(connection)


def _read_cursors(connection: duckdb.DuckDBPyConnection) -> dict[int, Cursor]:
    rows = connection.execute(f"FROM {_CURSORS}").fetchall()
    return {
        shard: Cursor(shard, position, None if as_of is None else _as_time(as_of), change)
        for shard, position, as_of, change in rows
    }


def _tables_of(connection: duckdb.DuckDBPyConnection) -> set[str]:
    return {name for (name,) in connection.execute("SHOW TABLES").fetchall()}


class _Question:
    """The conditions of a question, and the parameters that they name."""

    def __init__(self, scope: Scope, replaced: dict[bytes, bytes]) -> None:
        self.parameters: dict[str, Any] = {
            "store": _store(scope.store_uid),
            "end": _as_number(scope.end_time),
            "replaced": [UUID(bytes=old) for old in replaced],
            "representatives": [UUID(bytes=new) for new in replaced.values()],
        }
        self.filters = " AND ".join(map(self._taken_by, scope.filters)) or "true"
        self.start = self._parameter(_as_number(scope.start_time))
        self.conditions = f"time >= {self.start} AND {self.filters}"

    @property
    def parameters_but_start(self) -> dict[str, Any]:
        """For a question that begins elsewhere: DuckDB refuses what a statement doesn't name."""
        return {name: value for name, value in self.parameters.items() if name != self.start[1:]}

    def condition_of(self, step: Step | None) -> str:
        """Which events are of the step."""
        if step is None:
            return "true"
        condition = f"type = {self._parameter(step.type)}"
        if step.name:
            condition += f" AND name = {self._parameter(step.name)}"
        if step.page:
            condition += f" AND page = {self._parameter(step.page)}"
        return f"({condition})"

    def value_of(self, of: Dimension | Property | None) -> str:
        """The text that an event has there, empty if none."""
        match of:
            case None:
                return "''"
            case Dimension.BROWSER:
                return "agent"
            case Dimension.TRUST:
                return "if(trust = 2, 'confirmed', 'claimed')"
            case Dimension():
                name: str = of.value
                return name
            case Property(path):
                pointer = "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)
                found = f"json_extract_string(properties, {self._parameter(pointer)})"
                return f"coalesce({found}, '')"

    def _taken_by(self, taken: Filter) -> str:
        return f"{self.value_of(taken.of)} = {self._parameter(taken.text)}"

    def _parameter(self, value: Any) -> str:
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f"${name}"


def _rows_of(facts: Iterable[Fact]) -> list[dict[str, Any]]:
    # Ids as hex digits: objects for them would take as long as all the rest.
    rows = []
    for fact in facts:
        event, properties = fact.event, fact.payload.properties
        move = CART_MOVES.get(event.name) if event.type == TRACK else None
        change = read_cart_change(move, properties) if move else NO_CHANGE
        previous = fact.payload.previous_id if event.type == ALIAS else ""
        claimed = event.anonymous_id if event.type == IDENTIFY else previous
        numbering = numbering_of(fact.payload)
        rows.append(
            {
                "store": parse_uid("sto", event.store_uid).hex(),
                "id": event.id,
                "time": _as_number(event.occur_time),
                "mark": fact.mark.hex(),
                "type": event.type,
                "name": event.name,
                "browser": _as_hex(fact.anonymous),
                "account": _as_hex(fact.user),
                "claimed": _as_hex(anonymous_subject(claimed) if claimed else None),
                "alias": _as_hex(user_subject(previous) if previous and fact.user else None),
                "page": fact.page,
                "campaign": fact.campaign,
                "referrer": fact.referrer,
                "device": fact.device,
                "country": fact.country,
                "agent": event.browser,
                "consent": event.consent,
                "trust": event.trust,
                "move": move,
                "pieces": change.pieces,
                "amount": change.amount,
                "currency": change.currency,
                "properties": _numbers.encode(properties).decode(),
                "numbered_by": _as_hex(digest_of(numbering.visitor) if numbering else None),
                "number": numbering.number if numbering else None,
            }
        )
    return rows


def _add_orders(connection: duckdb.DuckDBPyConnection, facts: Sequence[Fact]) -> None:
    """Take what the facts tell of orders into the orders, which are made anew from all of it."""
    told: defaultdict[tuple[UUID, UUID], list[tuple[Telling, Fact, str]]] = defaultdict(list)
    for fact in facts:
        telling = TELLINGS.get(fact.event.name) if fact.event.type == TRACK else None
        if telling and (order_id := text_in(fact.payload.properties, "order_id")):
            key = _store(fact.event.store_uid), UUID(bytes=digest_of(order_id))
            told[key].append((telling, fact, order_id))
    if not told:
        return
    keys = {"stores": [store for store, _ in told], "keys": [key for _, key in told]}
    among = "(store, order_key) IN (SELECT unnest($stores::UUID[]), unnest($keys::UUID[]))"
    rows = connection.execute(
        f"SELECT store, order_key, told FROM {_ORDERS} WHERE {among}",  # noqa: S608
        keys,
    ).fetchall()
    orders = {(store, key): msgspec.msgpack.decode(known, type=Order) for store, key, known in rows}
    if orders:
        connection.execute(f"DELETE FROM {_ORDERS} WHERE {among}", keys)  # noqa: S608
    added: dict[str, list[Any]] = {name: [] for name in _ORDER_COLUMNS}
    for key, statements in told.items():
        order = orders.get(key) or Order()
        for telling, fact, _ in statements:
            order.add(telling, _statement_of(fact))
        for name, value in _order_row(key, statements[0][2], order).items():
            added[name].append(value)
    connection.execute(_PUT_ORDERS, added)


def _amend_orders(connection: duckdb.DuckDBPyConnection, facts: Sequence[Fact]) -> None:
    """Let orders be known by the ids that facts give them now, and forget whose they are.

    The facts are about to take the places of the events with their ids.
    """
    now = {fact.event.id: fact for fact in facts}
    before = connection.execute(
        f"SELECT id, store, mark, name, properties FROM {_EVENTS}"  # noqa: S608 - names only
        f" WHERE id IN (SELECT unnest($ids::BIGINT[])) AND type = {TRACK}",
        {"ids": list(now)},
    ).fetchall()
    names: dict[tuple[UUID, UUID], str] = {}
    marks: dict[bytes, bytes] = {}
    refunds: defaultdict[tuple[UUID, UUID], dict[str, str]] = defaultdict(dict)
    nobody: set[bytes] = set()
    for identifier, store, mark, name, text in before:
        fact = now[identifier]
        properties = msgspec.json.decode(text)
        old_id, new_id = (text_in(one, "order_id") for one in (properties, fact.payload.properties))
        if name in TELLINGS and old_id and new_id:
            key = store, UUID(bytes=digest_of(old_id))
            names[key] = new_id
            marks[mark.bytes] = fact.mark
            refund = text_in(properties, "refund_id")
            # Other events of the order may have been overwritten before, with its row.
            for known_key in (key, (store, UUID(bytes=digest_of(new_id)))):
                refunds[known_key][refund] = text_in(fact.payload.properties, "refund_id")
            if fact.user is None and fact.anonymous is None:
                nobody.add(mark.bytes)
    if not names:
        return
    keys = {*names, *((store, UUID(bytes=digest_of(one))) for (store, _), one in names.items())}
    asked = {"stores": [store for store, _ in keys], "keys": [key for _, key in keys]}
    among = "(store, order_key) IN (SELECT unnest($stores::UUID[]), unnest($keys::UUID[]))"
    rows = connection.execute(
        f"SELECT store, order_key, order_id, told FROM {_ORDERS} WHERE {among}",  # noqa: S608
        asked,
    ).fetchall()
    connection.execute(f"DELETE FROM {_ORDERS} WHERE {among}", asked)  # noqa: S608
    added: dict[str, list[Any]] = {name: [] for name in _ORDER_COLUMNS}
    for store, old_key, known_id, told in rows:
        order_id = names.get((store, old_key), known_id)
        order = retold(
            msgspec.msgpack.decode(told, type=Order),
            marks,
            refunds[store, old_key],
            nobody=nobody,
        )
        new_key = store, UUID(bytes=digest_of(order_id))
        for name, value in _order_row(new_key, order_id, order).items():
            added[name].append(value)
    if rows:
        connection.execute(_PUT_ORDERS, added)


def _statement_of(fact: Fact) -> Statement:
    event, properties = fact.event, fact.payload.properties
    return read_statement(
        properties,
        time=event.occur_time,
        mark=fact.mark,
        trust=Trust(event.trust),
        origin=Origin(
            user=fact.user or b"",
            anonymous=fact.anonymous or b"",
            payment_method=text_in(properties, "payment_method"),
            browser=event.browser,
            consent=event.consent,
        ),
    )


def _order_row(key: tuple[UUID, UUID], order_id: str, order: Order) -> dict[str, Any]:
    entries = entries_of(order)
    sale = entries[0] if entries else None
    origin = origin_of(order)
    return {
        "store": key[0],
        "order_key": key[1],
        "told": msgspec.msgpack.encode(order),
        "order_id": order_id,
        "time": _as_number(sale.time) if sale else None,
        "trust": sale.trust if sale else None,
        "currency": sale.currency if sale else None,
        "gross": sale.amount if sale else None,
        "taken": sum(entry.amount for entry in entries[1:]),
        "told_count": max(order.completion_counts.values(), default=0),
        "account": _as_uuid(origin.user or None),
        "browser": _as_uuid(origin.anonymous or None),
        "payment_method": origin.payment_method,
        "agent": origin.browser,
        "consent": origin.consent,
    }


_CartRows: TypeAlias = list[tuple[CartState, str, int]]


def _cart_sums(rows: _CartRows) -> CartSums:
    counts: Counter[CartState] = Counter()
    values: Counter[tuple[CartState, str]] = Counter()
    for state, currency, found in rows:
        if currency:
            values[state, currency] += found
        else:
            counts[state] += found
    return CartSums(counts, values)


def _periods_of(boundaries: Sequence[datetime]) -> dict[str, Any]:
    """The parameters of `_PERIODS`."""
    starts = [_as_number(time) for time in boundaries[:-1]]
    return {"starts": starts, "periods": len(starts)}


def _as_types(found: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(sorted({_JSON_TYPES.get(one, "null") for one in found or ()}))


def _as_uuid(subject: bytes | None) -> UUID | None:
    return UUID(bytes=subject) if subject else None


def _as_hex(subject: bytes | None) -> str | None:
    return subject.hex() if subject else None


def _store(store_uid: str) -> UUID:
    return UUID(bytes=parse_uid("sto", store_uid))


def _as_time(number: int) -> datetime:
    return _EPOCH + number * _MICROSECOND


def _as_number(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND
