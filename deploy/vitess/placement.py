"""Where each table's rows are once there is more than one shard, and why there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class By(Enum):
    """What decides which shard a row is on."""

    STORE = "store"
    """The store's uid, by the hash that also decides which shard of the log it has."""
    LOG_SHARD = "log_shard"
    """The number of a shard of the log: where its stores are."""
    EVENT = "event"
    """An event's place in the log, which says nothing that Vitess could tell a shard by."""
    NOTHING = "nothing"
    """All rows are together on the first shard."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a table's rows are."""

    by: By
    column: str = ""
    counted: bool = False
    """Whether its `id` is counted up, which takes a sequence where there are shards."""
    reason: str = ""
    """Why not by the store."""


_STORE = Placement(By.STORE, "store_uid")
_COUNTED_STORE = Placement(By.STORE, "store_uid", counted=True)
_LOG_SHARD = Placement(By.LOG_SHARD, "shard", reason="of all stores of a shard of the log")
_LEDGER = {
    "cron_runs": Placement(By.NOTHING, counted=True, reason="a run is of all stores"),
    "cron_fences": Placement(By.NOTHING, reason="a row a job"),
}
_PURGED = Placement(By.NOTHING, reason="read all together by a job; a row a purged store")
_SETTINGS = "read all together, to learn what changed; a row a store, and remembered"

INGEST: Mapping[str, Placement] = {
    "events": _STORE,
    "event_people": _STORE,
    "suppressions": _STORE,
    "verdict_hours": _STORE,
    "retention_rules": _STORE,
    "rejected_events": _COUNTED_STORE,
    "quota_receipts": _COUNTED_STORE,
    "log_heads": _LOG_SHARD,
    "log_changes": _LOG_SHARD,
    "people_cursors": _LOG_SHARD,
    "expiry_cursors": _LOG_SHARD,
    "journal_cursors": _LOG_SHARD,
    "store_settings": Placement(By.NOTHING, reason=_SETTINGS),
    "tracking_plans": Placement(By.NOTHING, counted=True, reason=_SETTINGS),
    "tracking_plan_versions": Placement(By.NOTHING, reason="beside its plan"),
    "purged_stores": _PURGED,
    **_LEDGER,
}

QUERY: Mapping[str, Placement] = {
    "tallies": _STORE,
    "visits": _STORE,
    "owners": _STORE,
    "representatives": _STORE,
    "sessions": _STORE,
    "session_sums": _STORE,
    "session_days": _STORE,
    "tally_days": _STORE,
    "orders": _STORE,
    "revenue": _STORE,
    "product_sales": _STORE,
    "products": _STORE,
    "recorded_events": _STORE,
    "silent_events": _STORE,
    "generation_cursors": _LOG_SHARD,
    "listed_changes": _LOG_SHARD,
    "carried_events": Placement(
        By.EVENT, "event_id", reason="names no store; asked for by jobs and rebuilds only"
    ),
    "generations": Placement(By.NOTHING, reason="a row or two, locked while figures are written"),
    "column_copies": Placement(By.NOTHING, reason="a row a replica and shard"),
    "purged_stores": _PURGED,
    **_LEDGER,
}

SHARDED: Mapping[str, Mapping[str, Placement]] = {"ingest": INGEST, "query": QUERY}

UNSHARDED: Mapping[str, str] = {
    "keys": "A row a key, and a trail whose entries are chained in one order.",
    "maintenance": "A row for each time that a person asks for their data.",
}
"""Services whose schema stays on one shard, each with the reason."""

EVERYWHERE: Mapping[str, Mapping[str, str]] = {
    "ingest": {
        r"FROM events\s+WHERE events\.id > \S+ AND events\.id < ": (
            "The log is read by place. All shards but one find nothing, by their primary key."
        ),
    },
    "query": {
        r"FROM generation_cursors\s+WHERE generation_cursors\.generation = \S+\s*$": (
            "How far all shards of the log are, which every report says. A row for each."
        ),
    },
}
"""The statements of the hot path that ask every shard: what they look like, and why."""
