"""Catches the statements that a service sends to its database."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlglot
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlglot import exp

from deploy.vitess.placement import By, Placement

_SESSION = re.compile(r"(SET|SAVEPOINT|RELEASE|ROLLBACK|SELECT (UTC_TIMESTAMP|@@|DATABASE))\b")


@contextmanager
def caught() -> Iterator[list[str]]:
    """What any engine of this process sends during the block, but for what is the session's own."""
    statements: list[str] = []

    def catch(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if not _SESSION.match(statement):
            statements.append(statement)

    event.listen(Engine, "before_cursor_execute", catch)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", catch)


def without_shard(statement: str, tables: dict[str, Placement]) -> str | None:
    """The statement as it would be if somebody forgot what names its shard; None if none does."""
    text = re.sub(r"%\(\w+\)s|%s", "?", statement).replace("%%", "%")
    tree = sqlglot.parse_one(text, dialect="mysql")
    asked = [tables[each.name] for each in tree.find_all(exp.Table) if each.name in tables]
    # What is on the first shard anyway, needs no name for it.
    names = {each.column for each in asked if each.by in (By.STORE, By.LOG_SHARD)}
    if isinstance(tree, exp.Insert):
        return None
    found = False
    for column in list(tree.find_all(exp.Column)):
        compared = column.find_ancestor(exp.EQ, exp.In)
        if column.name in names and compared is not None and column.find_ancestor(exp.Where):
            compared.replace(exp.true())
            found = True
    return tree.sql(dialect="mysql") if found else None
