"""Makes a large store of a small one: what others did was done by twice as many, again and again.

Copied within the databases, since sending and counting a million events takes many minutes.
Reports stay those of the small store; wherever people's rows are looked for, there are as many as
there would be.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Table, func, literal_column, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.db import Database
from services.ingest.tables import event_people, events, log_heads, people_cursors
from services.query.tables import generation_cursors, owners, recorded_events, sessions, visits

# The others' ids begin so. What the people did who are looked for is not copied.
_OF_OTHERS = "(user_id LIKE 'u%' OR (user_id = '' AND anonymous_id LIKE 'b%'))"

Changes: TypeAlias = dict[str, str]
"""SQL for the columns in which a copy differs."""


async def double(
    databases: Mapping[str, Database], *, times: int, but_for: Collection[bytes]
) -> None:
    """Let a store have twice as many others, so many times, while nobody is at work on it.

    What stands in figures for those that are not copied is named by `but_for`.
    """
    spared = ", ".join(f"x'{one.hex()}'" for one in but_for)
    of_others = f"generation = 1 AND subject NOT IN ({spared})"
    for round_number in range(times):
        async with databases["ingest"].begin() as transaction:
            by = int(await transaction.scalar(select(func.max(log_heads.c.position))) or 0)
            people = {"digest": _random(transaction), "event_id": f"event_id + {by}"}
            among = f"event_id IN (SELECT id FROM events WHERE {_OF_OTHERS})"
            await _copy(transaction, event_people, people, among=among)
            key = {"message_key": _random(transaction)}
            await _copy_events(transaction, events, key, by=by, mark=f"-{round_number}")
            for table in (log_heads, people_cursors):
                await transaction.execute(
                    table.update().where(table.c.position == by).values(position=2 * by)
                )
        async with databases["query"].begin() as transaction:
            await _copy_events(transaction, recorded_events, {}, by=by, mark=f"-{round_number}")
            one, other = _random(transaction), _random(transaction)
            await _copy(transaction, visits, {"subject": one}, among=of_others)
            await _copy(transaction, sessions, {"subject": one}, among=of_others)
            both = {"subject": one, "user": other}
            await _copy(transaction, owners, both, among=of_others)
            await transaction.execute(
                generation_cursors.update()
                .where(generation_cursors.c.position == by)
                .values(position=2 * by)
            )


async def _copy_events(
    transaction: AsyncConnection, table: Table, changes: Changes, *, by: int, mark: str
) -> None:
    def marked(column: str) -> str:
        joined = f"CONCAT({column}, '{mark}')"
        if transaction.dialect.name == "sqlite":
            joined = f"{column} || '{mark}'"
        return f"CASE WHEN {column} = '' THEN '' ELSE {joined} END"

    changes = {
        "id": f"id + {by}",
        "uid": _random(transaction),
        "user_id": marked("user_id"),
        "anonymous_id": marked("anonymous_id"),
        **changes,
    }
    await _copy(transaction, table, changes, among=_OF_OTHERS)


async def _copy(
    transaction: AsyncConnection, table: Table, changes: Changes, *, among: str
) -> None:
    names = [column.name for column in table.columns]
    quoted = {name: transaction.dialect.identifier_preparer.quote(name) for name in names}
    values: list[ColumnElement[Any]] = [
        literal_column(changes.get(name, quoted[name])) for name in names
    ]
    chosen = select(*values).select_from(table).where(text(among))
    await transaction.execute(table.insert().from_select(names, chosen, include_defaults=False))


def _random(transaction: AsyncConnection) -> str:
    return "randomblob(16)" if transaction.dialect.name == "sqlite" else "RANDOM_BYTES(16)"
