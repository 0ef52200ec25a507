"""The tables of a service's own record of its runs."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, UniqueConstraint

from common.db import TABLE_OPTIONS, Timestamp, identity_columns

_metadata = MetaData()

cron_runs = Table(
    "cron_runs",
    _metadata,
    *identity_columns("run"),
    Column("job", String(64), nullable=False),
    Column("scheduled_time", Timestamp(), nullable=False),
    Column("state", Integer, nullable=False),
    Column("fence", BigInteger, nullable=False),  # of the attempt that may write
    Column("lease_time", Timestamp(), nullable=False),  # until when that attempt may be at work
    Column("attempt_count", Integer, nullable=False),
    Column("row_count", BigInteger, nullable=False),
    Column("progress", String(1000), nullable=False),  # the cursor of the next batch
    Column("caller", String(255), nullable=False),
    Column("start_time", Timestamp(), nullable=False),
    Column("end_time", Timestamp(), nullable=True),
    UniqueConstraint("job", "scheduled_time"),
    **TABLE_OPTIONS,
)

# One row a job: whoever claims a run locks it, and counts the fence up.
cron_fences = Table(
    "cron_fences",
    _metadata,
    Column("job", String(64), primary_key=True),
    Column("fence", BigInteger, nullable=False),
    **TABLE_OPTIONS,
)


def add_cron_tables(metadata: MetaData) -> None:
    """Count the ledger among a service's tables."""
    for table in (cron_runs, cron_fences):
        table.to_metadata(metadata)
