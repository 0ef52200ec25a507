"""`EventColumns` in DuckDB, embedded: a file of its own, or memory."""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import msgspec

from common.uid import parse_uid
from services.query.columns import (
    BreakdownRow,
    Cohort,
    Dimension,
    EventDescription,
    Filter,
    FunnelRow,
    Property,
    PropertyDescription,
    Scope,
    Step,
)
from services.query.freshness import Cursor
from services.query.identities import anonymous_subject, join, user_subject
from services.query.payload import (
    campaign_of,
    country_of,
    device_of,
    page_path_of,
    referrer_of,
)
from services.query.projection import ALIAS, IDENTIFY, Fact

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
    "properties": "VARCHAR",
}
# The number goes up with each change, so a file of before is not read but made anew.
_EVENTS, _CURSORS = "events_1", "cursors_1"
# Up to which change of the log the events are as it left them; and whether the file may still
# hold what was overwritten since it was written whole.
_CHANGES, _RESIDUE = "changes_1", "residue_1"
_PREPARE = (
    "SET threads = 2",
    f"CREATE TABLE IF NOT EXISTS {_EVENTS}"
    f" ({', '.join(f'{name} {kind}' for name, kind in _COLUMNS.items())})",
    f"CREATE TABLE IF NOT EXISTS {_CURSORS}"
    " (shard INTEGER PRIMARY KEY, position BIGINT, as_of BIGINT)",
    f"CREATE TABLE IF NOT EXISTS {_CHANGES} (shard INTEGER PRIMARY KEY, number BIGINT)",
)
_READ_PAGE = (
    f"INSERT INTO {_EVENTS} SELECT * FROM"  # noqa: S608 - names of columns only
    " read_json($path, format = 'newline_delimited',"
    f" columns = {{{', '.join(f'{name}: {kind!r}' for name, kind in _COLUMNS.items())}}})"
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
),
done AS (
    SELECT e.*, coalesce(j.representative, e.account, o.account, e.browser) AS person
    FROM {_EVENTS} e
    LEFT JOIN owners o ON e.account IS NULL AND o.browser = e.browser
    LEFT JOIN joined j ON j.account = coalesce(e.account, o.account)
    WHERE e.store = $store AND e.time < $end
)"""  # noqa: S608 - names of columns only


# As the sender wrote them, so that a catalogue tells numbers from texts.
_numbers = msgspec.json.Encoder(decimal_format="number")


class DuckColumns:
    """Keeps the events in a file, which no other process may have open; without one, in memory."""

    def __init__(self, path: Path | None = None) -> None:
        if path is not None and path.exists():
            _remove_residue(path)
        self._connection = duckdb.connect(str(path) if path else ":memory:")
        self._writing = asyncio.Lock()
        for statement in _PREPARE:
            self._connection.execute(statement)

    async def cursors(self) -> list[Cursor]:
        rows = await self._ask(
            "SELECT shard, position, as_of, coalesce(number, 0)"  # noqa: S608 - names only
            f" FROM {_CURSORS} LEFT JOIN {_CHANGES} USING (shard)",
            {},
        )
        return [
            Cursor(
                shard, position, None if as_of is None else _EPOCH + as_of * _MICROSECOND, number
            )
            for shard, position, as_of, number in rows
        ]

    async def add(self, cursor: Cursor, facts: Sequence[Fact]) -> None:
        await self._write(self._add, cursor, facts)

    async def amend(self, shard: int, change_number: int, facts: Sequence[Fact]) -> None:
        await self._write(self._amend, shard, change_number, facts)

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
            WITH {_PEOPLE},
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
            WITH {_PEOPLE},
            periods AS (
                SELECT unnest($starts::BIGINT[]) AS start, unnest(range($periods)) AS period
            ),
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
                "starts": [_as_number(time) for time in boundaries[:-1]],
                "periods": period_count,
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
            WITH {_PEOPLE}
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
            WITH {_PEOPLE},
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

    async def describe(self, scope: Scope, *, limit: int) -> list[EventDescription]:
        question = await self._question(scope)
        named = f"""
            named AS (
                SELECT type, name, count(*) AS times, min(time) AS first, max(time) AS last
                FROM {_EVENTS}
                WHERE store = $store AND time < $end AND {question.conditions}
                GROUP BY type, name ORDER BY times DESC, type, name LIMIT $limit
            )"""  # noqa: S608 - texts are parameters
        # DuckDB refuses parameters that a statement doesn't name.
        parameters = {
            name: value
            for name, value in question.parameters.items()
            if name not in ("replaced", "representatives")
        } | {"limit": limit}
        rows = await self._ask(
            f"WITH {named} SELECT * FROM named ORDER BY times DESC, type, name",  # noqa: S608
            parameters,
        )
        keys = await self._ask(
            f"""
            WITH {named},
            pairs AS (
                SELECT e.type, e.name, unnest(json_keys(e.properties)) AS key, e.properties
                FROM {_EVENTS} e JOIN named n ON n.type = e.type AND n.name = e.name
                WHERE store = $store AND time < $end AND {question.conditions}
            )
            SELECT type, name, key, count(*) AS times, list(DISTINCT json_type(
                properties, '/' || replace(replace(key, '~', '~0'), '/', '~1')))
            FROM pairs GROUP BY type, name, key ORDER BY times DESC, key
            """,  # noqa: S608 - texts are parameters
            parameters,
        )
        properties: defaultdict[tuple[int, str], list[PropertyDescription]] = defaultdict(list)
        for kind, name, key, times, types in keys:
            if len(properties[kind, name]) < _MOST_PROPERTIES:
                known = tuple(sorted({_JSON_TYPES.get(one, "null") for one in types}))
                properties[kind, name].append(PropertyDescription(key, times, known))
        return [
            EventDescription(
                type=kind,
                name=name,
                event_count=times,
                first_time=_as_time(first),
                last_time=_as_time(last),
                properties=properties[kind, name],
            )
            for kind, name, times, first, last in rows
        ]

    async def close(self) -> None:
        async with self._writing:
            self._connection.close()

    async def _write(self, work: Callable[..., None], *arguments: Any) -> None:
        async with self._writing:
            running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
            try:
                await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.wait([running])  # The thread goes on with the connection.
                raise

    async def _question(self, scope: Scope) -> _Question:
        pairs = await self._ask(
            f"SELECT DISTINCT alias, account FROM {_EVENTS}"  # noqa: S608 - no text in it
            " WHERE store = $store AND alias IS NOT NULL",
            {"store": _store(scope.store_uid)},
        )
        return _Question(scope, join([(one.bytes, other.bytes) for one, other in pairs], {}))

    async def _ask(self, statement: str, parameters: dict[str, Any]) -> list[Any]:
        def ask() -> list[Any]:
            # A cursor is a connection of its own, and sees what was committed when it began.
            with self._connection.cursor() as cursor:
                return cursor.execute(statement, parameters).fetchall()

        return await asyncio.to_thread(ask)

    def _add(self, cursor: Cursor, facts: Sequence[Fact]) -> None:
        with (
            tempfile.NamedTemporaryFile(suffix=".json") as page,
            self._connection.cursor() as connection,
        ):
            page.write(msgspec.json.Encoder().encode_lines(_rows_of(facts)))
            page.flush()
            connection.execute("BEGIN")
            if facts:
                # A page of a thousand rows at once: row by row takes ten times as long.
                connection.execute(_READ_PAGE, {"path": page.name})
            connection.execute(
                f"INSERT OR REPLACE INTO {_CURSORS} VALUES ($shard, $position, $as_of)",  # noqa: S608
                {
                    "shard": cursor.shard,
                    "position": cursor.position,
                    "as_of": _as_number(cursor.as_of_time) if cursor.as_of_time else None,
                },
            )
            connection.execute(
                f"INSERT OR IGNORE INTO {_CHANGES} VALUES ($shard, $number)",  # noqa: S608
                {"shard": cursor.shard, "number": cursor.change_number},
            )
            connection.execute("COMMIT")

    def _amend(self, shard: int, change_number: int, facts: Sequence[Fact]) -> None:
        with (
            tempfile.NamedTemporaryFile(suffix=".json") as page,
            self._connection.cursor() as connection,
        ):
            page.write(msgspec.json.Encoder().encode_lines(_rows_of(facts)))
            page.flush()
            connection.execute("BEGIN")
            if facts:
                connection.execute(
                    f"DELETE FROM {_EVENTS} WHERE id IN (SELECT unnest($ids::BIGINT[]))",  # noqa: S608
                    {"ids": [fact.event.id for fact in facts]},
                )
                connection.execute(_READ_PAGE, {"path": page.name})
                connection.execute(f"CREATE TABLE IF NOT EXISTS {_RESIDUE} (mark BOOLEAN)")
            connection.execute(
                f"INSERT OR REPLACE INTO {_CHANGES} VALUES ($shard, $number)",  # noqa: S608
                {"shard": shard, "number": change_number},
            )
            connection.execute("COMMIT")
            # Else the file beside it, which has what was added lately, would keep it.
            connection.execute("CHECKPOINT")


def _remove_residue(path: Path) -> None:
    """Write the file whole and anew, if it may hold what was overwritten: blocks stay as they are.

    Nobody else has it open.
    """
    fresh = path.with_name(f"{path.name}.fresh")
    fresh.unlink(missing_ok=True)
    with duckdb.connect(str(path)) as old:
        known = {name for (name,) in old.execute("SHOW TABLES").fetchall()}
        if _RESIDUE not in known:
            return
    with duckdb.connect(str(fresh)) as new:
        for statement in _PREPARE:
            new.execute(statement)
        new.execute("ATTACH $path AS old (READ_ONLY)", {"path": str(path)})
        for name in (_EVENTS, _CURSORS, _CHANGES):
            new.execute(f"INSERT INTO {name} FROM old.{name}")
        new.execute("DETACH old")
    fresh.replace(path)
    path.with_name(f"{path.name}.wal").unlink(missing_ok=True)


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
        start = self._parameter(_as_number(scope.start_time))
        self.conditions = f"time >= {start} AND {self.filters}"

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
            case Dimension():
                return of.value
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
    rows = []
    for fact in facts:
        event = fact.event
        previous = fact.payload.previous_id if event.type == ALIAS else ""
        claimed = event.anonymous_id if event.type == IDENTIFY else previous
        rows.append(
            {
                "store": _store(event.store_uid),
                "id": event.id,
                "time": _as_number(event.occur_time),
                "mark": UUID(bytes=fact.mark),
                "type": event.type,
                "name": event.name,
                "browser": _as_uuid(anonymous_subject, event.anonymous_id),
                "account": _as_uuid(user_subject, event.user_id),
                "claimed": _as_uuid(anonymous_subject, claimed),
                "alias": _as_uuid(user_subject, previous) if event.user_id else None,
                "page": page_path_of(fact.payload),
                "campaign": campaign_of(fact.payload),
                "referrer": referrer_of(fact.payload),
                "device": device_of(fact.payload),
                "country": country_of(fact.payload),
                "properties": _numbers.encode(dict(fact.payload.properties)).decode(),
            }
        )
    return rows


def _as_uuid(subject_of: Any, text: str) -> UUID | None:
    return UUID(bytes=subject_of(text)) if text else None


def _store(store_uid: str) -> UUID:
    return UUID(bytes=parse_uid("sto", store_uid))


def _as_time(number: int) -> datetime:
    return _EPOCH + number * _MICROSECOND


def _as_number(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND
