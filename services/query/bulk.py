"""Writes many rows, and finds rows by many keys, as cheaply as the database takes them.

As text, since this is what the projector spends its time on: SQLAlchemy takes longer to bind
a row than the database to store it. Rows are tuples of what the database holds: numbers, the
bytes of ids and texts, and times as `time_text` writes them. On MySQL, and in look-ups, they
stand in the statement as numbers and hex literals, which need no escaping and can't be broken
out of. Functions take the caller's transaction and never end it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

Row: TypeAlias = tuple[int | str | bytes, ...]
Key: TypeAlias = tuple[bytes, bytes]
"""A store, and what stands for a subject or an order in it."""

_ROWS_A_STATEMENT = 1000
# MySQL refuses statements that are longer than `max_allowed_packet`, of 16 MB at the least.
_LETTERS_A_STATEMENT = 4 * 1024 * 1024
_KEYS_A_STATEMENT = 500

_LENGTH_WITH_MICROSECONDS = len('"2026-03-10T12:00:00.000001Z"')
_encoder = msgspec.json.Encoder()


async def put(
    transaction: AsyncConnection,
    table: Table,
    rows: Sequence[Row],
    *,
    add: Sequence[str] = (),
    replace: Sequence[str] = (),
) -> None:
    """Insert rows, each with all the table's columns; of those that are there, change some.

    Those in `add` grow by what the new row has, those in `replace` become it.
    """
    if not rows:
        return
    sqlite = transaction.dialect.name == "sqlite"
    insert, on_known = _statement(table, tuple(add), tuple(replace), sqlite)
    if sqlite:
        places = ",".join("?" * len(table.c))
        await transaction.exec_driver_sql(f"{insert} ({places}) {on_known}", list(rows))
        return
    for some in _in_statements(rows):
        await transaction.exec_driver_sql(f"{insert} {','.join(some)} {on_known}")


async def find(
    transaction: AsyncConnection,
    table: Table,
    columns: Sequence[str],
    *,
    generation: int,
    key: str,
    keys: Collection[Key],
    condition: str = "",
) -> list[Sequence[Any]]:
    """These columns of a generation's rows with the stores and keys, as the database has them."""
    names = ", ".join(_quoted(name) for name in columns)
    more = f" AND {condition}" if condition else ""
    sqlite = transaction.dialect.name == "sqlite"
    found: list[Sequence[Any]] = []
    for some in _in_batches(sorted(keys)):
        if sqlite:
            # Joined in this order, each key is looked up. For `(store_uid, key) IN (…)` SQLite
            # would go through the whole generation.
            pairs = ",".join([f"(x'{store.hex()}',x'{one.hex()}')" for store, one in some])
            rows = await transaction.exec_driver_sql(
                f"WITH asked (store, one) AS (VALUES {pairs})"  # noqa: S608 - as below
                f" SELECT {names} FROM asked CROSS JOIN {table.name}"
                f" WHERE generation = {generation:d}"
                f" AND store_uid = asked.store AND `{key}` = asked.one{more}"
            )
        else:
            rows = await transaction.exec_driver_sql(
                f"SELECT {names} FROM {table.name}"  # noqa: S608 - numbers, names and hex digits
                f" WHERE generation = {generation:d} AND {_among(key, some)}{more}"
            )
        found += rows.all()
    return found


def time_text(time: datetime) -> str:
    """As SQLAlchemy writes times on both databases, with all six digits; must be UTC."""
    # In a fifth of the time that `isoformat` takes.
    text = _encoder.encode(time).decode()
    if len(text) == _LENGTH_WITH_MICROSECONDS:
        return f"{text[1:11]} {text[12:27]}"
    return time.isoformat(" ", "microseconds")[:26]


def read_time(found: datetime | str) -> datetime:
    """The time that the database gave."""
    time = found if isinstance(found, datetime) else datetime.fromisoformat(found)
    return time.replace(tzinfo=UTC)


@lru_cache
def _statement(
    table: Table, add: Sequence[str], replace: Sequence[str], sqlite: bool
) -> tuple[str, str]:
    """What stands before and behind the rows."""
    columns = ", ".join(_quoted(column.name) for column in table.c)
    insert = f"INSERT INTO {table.name} ({columns}) VALUES"
    changes = [(name, f"{_quoted(name)} + ") for name in add] + [(name, "") for name in replace]
    if sqlite:
        settings = ", ".join(
            f"{_quoted(name)} = {known}excluded.{_quoted(name)}" for name, known in changes
        )
        update = f"UPDATE SET {settings}" if changes else "NOTHING"
        return insert, f"ON CONFLICT DO {update}"
    settings = ", ".join(
        f"{_quoted(name)} = {known}VALUES({_quoted(name)})" for name, known in changes
    )
    first = _quoted(next(iter(table.primary_key.columns)).name)
    return insert, f"ON DUPLICATE KEY UPDATE {settings or f'{first} = {first}'}"


def _quoted(name: str) -> str:
    return f"`{name}`"  # SQLite takes MySQL's quotes too.


def _among(key: str, keys: Sequence[Key]) -> str:
    by_store: defaultdict[bytes, list[str]] = defaultdict(list)
    for store, subject in keys:
        by_store[store].append(f"x'{subject.hex()}'")
    # Each store's keys are ranges of the primary key; of pairs of columns they would be none.
    stores = (
        f"(store_uid = x'{store.hex()}' AND `{key}` IN ({','.join(subjects)}))"
        for store, subjects in by_store.items()
    )
    return f"({' OR '.join(stores)})"


def _in_statements(rows: Sequence[Row]) -> Iterator[list[str]]:
    """The rows' texts, in portions that a statement can hold."""
    some: list[str] = []
    length = 0
    for row in rows:
        literals = _as_literals(row)
        if some and (
            len(some) == _ROWS_A_STATEMENT or length + len(literals) > _LETTERS_A_STATEMENT
        ):
            yield some
            some, length = [], 0
        some.append(literals)
        length += len(literals)
    if some:
        yield some


def _as_literals(row: Iterable[int | str | bytes]) -> str:
    literals = [
        f"x'{value.hex()}'"
        if isinstance(value, bytes)
        else _text_literal(value)
        if isinstance(value, str)
        else f"{value:d}"
        for value in row
    ]
    return f"({','.join(literals)})"


def _text_literal(text: str) -> str:
    return f"_utf8mb4 x'{text.encode().hex()}'" if text else "''"


def _in_batches(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    for start in range(0, len(keys), _KEYS_A_STATEMENT):
        yield keys[start : start + _KEYS_A_STATEMENT]
