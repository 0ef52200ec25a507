"""Ingest's own tables."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql

from common.cron.tables import add_cron_tables
from common.db import TABLE_OPTIONS, Timestamp, Uid, private_key

metadata = MetaData()
add_cron_tables(metadata)

# The log. `id` is the shard in the high bits and the position in the low ones: one
# integer for key and order, and none that the database has to count up.
events = Table(
    "events",
    metadata,
    Column("id", private_key(), primary_key=True, autoincrement=False),
    Column("uid", Uid("evt"), nullable=False, unique=True),
    Column("store_uid", Uid("sto"), nullable=False),
    # The hash of the message id: 16 bytes where the text may have a thousand.
    Column("message_key", LargeBinary(16).with_variant(mysql.BINARY(16), "mysql"), nullable=False),
    Column("message_id", String(255), nullable=False),
    Column("type", SmallInteger, nullable=False),
    Column("name", String(255), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("anonymous_id", String(255), nullable=False),
    Column("occur_time", Timestamp(), nullable=False),
    Column("receive_time", Timestamp(), nullable=False),
    Column("payload", LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql"), nullable=False),
    UniqueConstraint("store_uid", "message_key"),
    **TABLE_OPTIONS,
)

# One row a shard. Who appends locks it, so that positions are in the order of the commits.
log_heads = Table(
    "log_heads",
    metadata,
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),
    **TABLE_OPTIONS,
)
