"""Maintenance's own tables."""

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
)
from sqlalchemy.dialects import mysql

from common.cron.tables import add_cron_tables
from common.db import TABLE_OPTIONS, Timestamp, Uid, identity_columns
from common.purged_stores import add_purged_stores_table

metadata = MetaData()
add_cron_tables(metadata)
add_purged_stores_table(metadata)

_BLOB = LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql")

# What people asked of a store about their data.
privacy_cases = Table(
    "privacy_cases",
    metadata,
    *identity_columns("case"),
    Column("store_uid", Uid("sto"), nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("state", SmallInteger, nullable=False),
    # Stands for the id that was given.
    Column("subject_hash", LargeBinary(16).with_variant(mysql.BINARY(16), "mysql"), nullable=False),
    # The person's ids, sealed, for as long as they are needed. Null afterwards.
    Column("sealed_subject", _BLOB, nullable=True),
    Column("id_count", Integer, nullable=False),
    # By table, as JSON.
    Column("counts", _BLOB, nullable=False),
    Column("failure", String(64), nullable=False),
    # Who works on it, and until when nobody else may. Or when it is tried again.
    Column("fence", BigInteger, nullable=False),
    Column("lease_time", Timestamp(), nullable=False),
    Column("attempt_count", Integer, nullable=False),
    Column("create_time", Timestamp(), nullable=False),
    Column("suppress_time", Timestamp(), nullable=True),
    Column("end_time", Timestamp(), nullable=True),
    # The signed content, and the signature before it.
    Column("receipt", _BLOB, nullable=True),
    Column("archive_part_count", Integer, nullable=False),
    Index("ix_privacy_cases_by_store", "store_uid", "id"),
    Index("ix_privacy_cases_by_state", "state", "lease_time"),
    **TABLE_OPTIONS,
)

# The archives of exports, in parts.
archive_parts = Table(
    "archive_parts",
    metadata,
    Column("case_id", BigInteger, primary_key=True, autoincrement=False),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("content", _BLOB, nullable=False),
    **TABLE_OPTIONS,
)

# What seals a person's rows in backups, of which it is no part. Who is erased loses theirs.
subject_keys = Table(
    "subject_keys",
    metadata,
    Column("store_uid", Uid("sto"), primary_key=True),
    # A keyed hash of what stands for a user or a browser.
    Column("digest", LargeBinary(16).with_variant(mysql.BINARY(16), "mysql"), primary_key=True),
    Column("key", LargeBinary(32).with_variant(mysql.BINARY(32), "mysql"), nullable=False),
    **TABLE_OPTIONS,
)
