"""Every table has its place on Vitess, and what must be together is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Table

from common.migrate import SERVICES, metadata_of
from deploy.vitess.placement import SHARDED, UNSHARDED, By, Placement
from deploy.vitess.vschema import LOG_SHARDS, SEQUENCES, files

VSchema = dict[str, Any]


@pytest.fixture
def vschemas() -> dict[str, VSchema]:
    return {path.stem: json.loads(text) for path, text in files().items()}


def check_table(table: Table, vschema: VSchema, sequences: VSchema) -> None:
    """Raises `AssertionError` if rows of the table would be nowhere, or counted up twice."""
    placed = vschema["tables"][table.name]
    assert ("pinned" in placed) != ("column_vindexes" in placed)
    for each in placed.get("column_vindexes", ()):
        assert each["column"] in table.columns, table.name
        assert each["name"] in vschema["vindexes"]
        # Who writes a row names its shard, so the column never changes and is never absent.
        assert not table.columns[each["column"]].nullable
    counted = any(column.autoincrement is True for column in table.primary_key.columns)
    assert counted == ("auto_increment" in placed), table.name
    if counted:
        keyspace, _, name = placed["auto_increment"]["sequence"].partition(".")
        assert keyspace == SEQUENCES
        assert sequences["tables"][name] == {"type": "sequence"}


def check_all(vschemas: Mapping[str, VSchema]) -> None:
    """Raises `AssertionError` or `KeyError` where a keyspace doesn't fit a service's tables."""
    assert {*SHARDED, *UNSHARDED} == set(SERVICES)
    for service in SHARDED:
        tables = metadata_of(service).tables
        assert set(vschemas[service]["tables"]) == set(tables)
        assert vschemas[service]["sharded"] is True
        for table in tables.values():
            check_table(table, vschemas[service], vschemas[SEQUENCES])
    for service in UNSHARDED:
        assert vschemas[service]["sharded"] is False
    assert vschemas[SEQUENCES]["sharded"] is False


def test_every_table_has_its_place(vschemas: Mapping[str, VSchema]) -> None:
    check_all(vschemas)


def forget_a_table(vschemas: dict[str, VSchema]) -> None:
    del vschemas["query"]["tables"]["visits"]


def misspell_a_column(vschemas: dict[str, VSchema]) -> None:
    vschemas["ingest"]["tables"]["events"]["column_vindexes"][0]["column"] = "store"


def count_on_every_shard(vschemas: dict[str, VSchema]) -> None:
    del vschemas["ingest"]["tables"]["rejected_events"]["auto_increment"]


def lose_a_sequence(vschemas: dict[str, VSchema]) -> None:
    vschemas[SEQUENCES]["tables"].clear()


@pytest.mark.parametrize(
    "spoil", [forget_a_table, misspell_a_column, count_on_every_shard, lose_a_sequence]
)
def test_a_planted_fault_is_found(
    vschemas: dict[str, VSchema], spoil: Callable[[dict[str, VSchema]], None]
) -> None:
    spoiled = deepcopy(vschemas)
    spoil(spoiled)

    with pytest.raises((AssertionError, KeyError)):
        check_all(spoiled)


def test_what_is_not_by_store_says_why() -> None:
    every: list[Placement] = [each for tables in SHARDED.values() for each in tables.values()]
    assert all(each.reason for each in every if each.by is not By.STORE)
    assert all(UNSHARDED.values())


def test_shards_of_the_log_are_in_order_over_the_whole_space(
    vschemas: Mapping[str, VSchema],
) -> None:
    places = json.loads(vschemas["ingest"]["vindexes"]["log_shard"]["params"]["json"])
    steps = [places[str(shard)] for shard in range(LOG_SHARDS)]

    assert steps[0] == 0
    assert {after - before for before, after in pairwise(steps)} == {2**64 // LOG_SHARDS}
    assert vschemas["query"]["vindexes"] == vschemas["ingest"]["vindexes"]
