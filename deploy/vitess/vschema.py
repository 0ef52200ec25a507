"""Writes the VSchema of each service's keyspace, for vtctldclient ApplyVSchema or PlanetScale."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.vitess.placement import SHARDED, UNSHARDED, By, Placement

VSchema = dict[str, Any]
DIRECTORY = Path(__file__).parent / "rendered"
SEQUENCES = "sequences"
"""The keyspace, of one shard, that counts."""
LOG_SHARDS = 64
"""`INGEST_SHARD_COUNT`, of which the number of shards must be a divisor; both powers of two."""
_FIRST_SHARD = "00"
_KEYSPACE_BITS = 64


def place_of_log_shard(shard: int, *, shard_count: int) -> int:
    """The first keyspace id of a shard of the log, as its stores' hashes begin."""
    return -(-(shard << _KEYSPACE_BITS) // shard_count)


def sharded_keyspace(tables: Mapping[str, Placement], *, shard_count: int) -> VSchema:
    """The VSchema of a keyspace whose rows are where `tables` say."""
    places = {
        str(shard): place_of_log_shard(shard, shard_count=shard_count)
        for shard in range(shard_count)
    }
    return {
        "sharded": True,
        "vindexes": {
            By.STORE.value: {"type": "binary_md5"},
            By.LOG_SHARD.value: {
                "type": "numeric_static_map",
                "params": {"json": json.dumps(places)},
            },
            By.EVENT.value: {"type": "xxhash"},
        },
        "tables": {name: _table(name, placement) for name, placement in tables.items()},
    }


def _table(name: str, placement: Placement) -> VSchema:
    table: VSchema = {}
    if placement.by is By.NOTHING:
        table["pinned"] = _FIRST_SHARD
    else:
        table["column_vindexes"] = [{"column": placement.column, "name": placement.by.value}]
    if placement.counted:
        table["auto_increment"] = {"column": "id", "sequence": f"{SEQUENCES}.{name}_seq"}
    return table


def files() -> dict[Path, str]:
    """What each keyspace's file holds."""
    keyspaces = {
        service: sharded_keyspace(tables, shard_count=LOG_SHARDS)
        for service, tables in SHARDED.items()
    }
    keyspaces |= {service: {"sharded": False, "tables": {}} for service in UNSHARDED}
    counted = {
        f"{name}_seq": {"type": "sequence"}
        for tables in SHARDED.values()
        for name, placement in tables.items()
        if placement.counted
    }
    keyspaces[SEQUENCES] = {"sharded": False, "tables": counted}
    return {
        DIRECTORY / f"{keyspace}.json": json.dumps(vschema, indent=2) + "\n"
        for keyspace, vschema in keyspaces.items()
    }
