"""Keys' tables."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

from common.cron.tables import add_cron_tables
from common.db import (
    APPEND_ONLY,
    TABLE_OPTIONS,
    Timestamp,
    Uid,
    identity_columns,
    lifecycle_columns,
    private_key,
)


def _hash() -> TypeEngine[bytes]:
    return LargeBinary(32).with_variant(mysql.BINARY(32), "mysql")


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

# Some time after a key has ended a job removes it.
api_keys = Table(
    "api_keys",
    metadata,
    *identity_columns("key"),
    Column("store_id", private_key(), ForeignKey("stores.id"), nullable=True),
    Column("kind", String(2), nullable=False),  # the first letters of its text
    Column("display_name", String(255), nullable=False),
    Column("hint", String(32), nullable=False),
    Column("pepper_version", Integer, nullable=False),  # tells when a pepper is used no more
    Column("hash", _hash(), nullable=False, unique=True),
    Column("scopes", String(255), nullable=False),  # separated by spaces
    Column("create_time", Timestamp(), nullable=False),
    Column("expire_time", Timestamp(), nullable=True),
    Column("revoke_time", Timestamp(), nullable=True),  # when it ended, for whatever reason
    Column("delete_time", Timestamp(), nullable=True),
    Column("purge_time", Timestamp(), nullable=True),
    Column("successor_uid", Uid("key"), nullable=True),
    Column("rotate_seconds", Integer, nullable=True),
    Column("rotate_time", Timestamp(), nullable=True),  # of keys that have no successor yet
    Column("allowed_origins", Text, nullable=True),  # separated by spaces
    Column("session_epoch", Integer, nullable=True),  # how often its sessions were ended
    Index("ix_api_keys_store_id", "store_id"),
    Index("ix_api_keys_revoke_time_expire_time", "revoke_time", "expire_time"),
    Index("ix_api_keys_purge_time", "purge_time"),
    Index("ix_api_keys_rotate_time", "rotate_time"),
    **TABLE_OPTIONS,
)

# Apart from the keys, since it changes all the time and nobody waits for it.
key_uses = Table(
    "key_uses",
    metadata,
    Column("key_id", private_key(), primary_key=True, autoincrement=False),
    Column("use_time", Timestamp(), nullable=True),
    Column("origin", String(255), nullable=False),
    Column("sdk", String(64), nullable=False),
    Column("expose_time", Timestamp(), nullable=True),
    **TABLE_OPTIONS,
)

# The trail: rows are added, and never changed or removed.
key_events = Table(
    "key_events",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("create_time", Timestamp(), nullable=False),
    Column("action", String(16), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("actor", String(255), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("client_network", String(64), nullable=False),
    Column("store_uid", Uid("sto"), nullable=True),
    Column("key_uid", Uid("key"), nullable=True),
    Column("detail", String(255), nullable=False),
    Column("hash", _hash(), nullable=False),
    Index("ix_key_events_store_uid_position", "store_uid", "position"),
    **APPEND_ONLY,
    **TABLE_OPTIONS,
)

# One row, whose lock puts the trail's entries in the order of their commits.
key_event_heads = Table(
    "key_event_heads",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),
    Column("hash", _hash(), nullable=False),
    **TABLE_OPTIONS,
)
