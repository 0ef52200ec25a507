"""Keys' tables."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Table
from sqlalchemy.dialects import mysql

from common.cron.tables import add_cron_tables
from common.db import TABLE_OPTIONS, Timestamp, identity_columns, lifecycle_columns, private_key

metadata = MetaData()
add_cron_tables(metadata)

stores = Table(
    "stores",
    metadata,
    *identity_columns("sto"),
    Column("display_name", String(255), nullable=False),
    *lifecycle_columns(),
    Index("ix_stores_purge_time", "purge_time"),
    **TABLE_OPTIONS,
)

# A key is never deleted by people, only ended; some time after that a job removes it.
api_keys = Table(
    "api_keys",
    metadata,
    *identity_columns("key"),
    Column("store_id", private_key(), ForeignKey("stores.id"), nullable=True),
    Column("kind", String(2), nullable=False),  # the first letters of its text
    Column("display_name", String(255), nullable=False),
    Column("hint", String(32), nullable=False),
    Column("pepper_version", Integer, nullable=False),  # tells when a pepper is used no more
    Column(
        "hash",
        LargeBinary(32).with_variant(mysql.BINARY(32), "mysql"),
        nullable=False,
        unique=True,
    ),
    Column("scopes", String(255), nullable=False),  # separated by spaces
    Column("create_time", Timestamp(), nullable=False),
    Column("expire_time", Timestamp(), nullable=True),
    Column("revoke_time", Timestamp(), nullable=True),  # when it ended, for whatever reason
    Index("ix_api_keys_store_id", "store_id"),
    Index("ix_api_keys_revoke_time_expire_time", "revoke_time", "expire_time"),
    **TABLE_OPTIONS,
)
