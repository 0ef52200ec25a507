"""Reads statements as Vitess does: does one name the shard that it wants?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import sqlglot
from sqlglot import exp

from deploy.vitess.placement import By, Placement

# What drivers put values in the place of.
_PLACEHOLDER = re.compile(r"%\(\w+\)s|%s")


def unrouted_tables(statement: str, tables: Mapping[str, Placement]) -> list[str]:
    """The tables of which the statement asks every shard. None of `tables`, and of others none.

    Raises `sqlglot.errors.ParseError` for what is no statement.
    """
    tree = sqlglot.parse_one(_PLACEHOLDER.sub("?", statement).replace("%%", "%"), dialect="mysql")
    if isinstance(tree, exp.Set | exp.Command | exp.Transaction | exp.Commit | exp.Rollback):
        return []
    if isinstance(tree, exp.Insert):
        return list(_unrouted_insert(tree, tables))
    unrouted: list[str] = []
    for part in tree.walk():
        if isinstance(part, exp.Select | exp.Update | exp.Delete):
            unrouted += _unrouted_in(part, tables)
    return unrouted


def _unrouted_insert(tree: exp.Insert, tables: Mapping[str, Placement]) -> Iterator[str]:
    target = tree.this
    name = target.find(exp.Table).name
    placement = tables.get(name)
    if placement is None or placement.by is By.NOTHING:
        return
    columns = {column.name for column in target.expressions} if target.expressions else set()
    if placement.column not in columns:
        yield name


def _unrouted_in(
    tree: exp.Select | exp.Update | exp.Delete, tables: Mapping[str, Placement]
) -> Iterator[str]:
    """Of the tables that the statement itself names, not its subqueries."""
    named = {table.alias_or_name: table.name for table in _tables_of(tree)}
    conditions = _conditions(tree)
    equal = set[tuple[str, str]]().union(*(_equal_columns(each) for each in conditions))
    routed = {
        alias
        for alias, name in named.items()
        if name in tables and _names_shard(alias, tables[name], equal, alone=len(named) == 1)
    }
    # What is joined by its own sharding key to what is routed goes there too.
    for left, right in (pair for each in conditions for pair in _joined_columns(each)):
        for one, other in ((left, right), (right, left)):
            if one.table in routed and other.table in named:
                placement = tables.get(named[other.table])
                source = tables.get(named[one.table])
                if (
                    placement is not None
                    and source is not None
                    and placement.by is source.by
                    and other.name == placement.column
                    and one.name == source.column
                ):
                    routed.add(other.table)
    for alias, name in named.items():
        if name in tables and tables[name].by is not By.NOTHING and alias not in routed:
            yield name


def _names_shard(
    alias: str, placement: Placement, equal: set[tuple[str, str]], *, alone: bool
) -> bool:
    columns = {(alias, placement.column)}
    if alone:
        columns.add(("", placement.column))
    return placement.by is By.NOTHING or bool(columns & equal)


def _tables_of(tree: exp.Select | exp.Update | exp.Delete) -> Iterator[exp.Table]:
    sources = [tree.this if isinstance(tree, exp.Update | exp.Delete) else None]
    for key in ("from_", "from"):
        found = tree.args.get(key)
        if found is not None:
            sources.append(found.this)
    sources += [join.this for join in tree.args.get("joins") or ()]
    for source in sources:
        if isinstance(source, exp.Table):
            yield source


def _conditions(tree: exp.Select | exp.Update | exp.Delete) -> list[exp.Expr]:
    """What must be true of a row, where it is found and where tables are joined."""
    where = tree.args.get("where")
    joins = tree.args.get("joins") or ()
    return [
        *([where.this] if where is not None else []),
        *(join.args["on"] for join in joins if join.args.get("on")),
    ]


def _all_of(condition: exp.Expr) -> Iterator[exp.Expr]:
    """The conditions that make one up, if all of them must be true."""
    condition = condition.unnest()
    if isinstance(condition, exp.And):
        yield from _all_of(condition.left)
        yield from _all_of(condition.right)
    else:
        yield condition


def _equal_columns(condition: exp.Expr) -> set[tuple[str, str]]:
    """The columns that have one value, or one of a few, each with its table's alias."""
    columns: set[tuple[str, str]] = set()
    for part in _all_of(condition):
        if isinstance(part, exp.Or):
            # What each of the alternatives says of a column, Vitess takes for a list of values.
            columns |= _equal_columns(part.left) & _equal_columns(part.right)
        elif isinstance(part, exp.EQ):
            for one, other in ((part.left, part.right), (part.right, part.left)):
                if isinstance(one, exp.Column) and not other.find(exp.Column):
                    columns.add((one.table, one.name))
        elif isinstance(part, exp.In) and part.args.get("query") is None:
            columns |= set(_columns_of(part.this))
    return columns


def _columns_of(expression: exp.Expr) -> Iterator[tuple[str, str]]:
    # Of a row of columns, each has one of a few values.
    parts = expression.expressions if isinstance(expression, exp.Tuple) else [expression]
    for part in parts:
        if isinstance(part, exp.Column):
            yield part.table, part.name


def _joined_columns(condition: exp.Expr) -> Iterator[tuple[exp.Column, exp.Column]]:
    for part in _all_of(condition):
        if (
            isinstance(part, exp.EQ)
            and isinstance(part.left, exp.Column)
            and isinstance(part.right, exp.Column)
        ):
            yield part.left, part.right
