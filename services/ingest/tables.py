"""Ingest's own tables."""

from __future__ import annotations

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
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql

from common.cron.tables import add_cron_tables
from common.db import (
    TABLE_OPTIONS,
    Timestamp,
    Uid,
    identity_columns,
    lifecycle_columns,
    private_key,
)
from common.purged_stores import add_purged_stores_table

metadata = MetaData()
add_cron_tables(metadata)
add_purged_stores_table(metadata)

_BLOB = LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql")
# The hash of a text: 16 bytes where the text may have a thousand, and no collation.
_HASH = LargeBinary(16).with_variant(mysql.BINARY(16), "mysql")

# The log. `id` is the shard in the high bits and the position in the low ones: one
# integer for key and order, and none that the database has to count up.
events = Table(
    "events",
    metadata,
    Column("id", private_key(), primary_key=True, autoincrement=False),
    Column("uid", Uid("evt"), nullable=False, unique=True),
    Column("store_uid", Uid("sto"), nullable=False),
    Column("message_key", _HASH, nullable=False),
    Column("message_id", String(255), nullable=False),
    Column("type", SmallInteger, nullable=False),
    Column("name", String(255), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("anonymous_id", String(255), nullable=False),
    Column("occur_time", Timestamp(), nullable=False),
    Column("receive_time", Timestamp(), nullable=False),
    Column("payload", _BLOB, nullable=False),
    # What Ingest found out about the event, as JSON. Null in events older than the column.
    Column("enrichment", LargeBinary(), nullable=True),
    UniqueConstraint("store_uid", "message_key"),
    **TABLE_OPTIONS,
)

# One row a shard. Who appends locks it, so that positions are in the order of the commits.
log_heads = Table(
    "log_heads",
    metadata,
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),
    # Grows with each change of the suppressions that matter to this shard. 0 while there are none.
    Column("suppression_revision", BigInteger, nullable=False, server_default="0"),
    # The number of the shard's last row in `log_changes`.
    Column("change_number", BigInteger, nullable=False, server_default="0"),
    **TABLE_OPTIONS,
)

# What was overwritten in the log, so that readers can follow.
log_changes = Table(
    "log_changes",
    metadata,
    Column("shard", Integer, primary_key=True, autoincrement=False),
    # From 1, without gaps.
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", BigInteger, nullable=False),
    Column("change_time", Timestamp(), nullable=False),
    **TABLE_OPTIONS,
)

# For how long stores keep events, by their names. Without a rule, for ever.
retention_rules = Table(
    "retention_rules",
    metadata,
    Column("store_uid", Uid("sto"), primary_key=True),
    # Of the name, which is empty in the rule for all others.
    Column("event_key", _HASH, primary_key=True),
    Column("event_name", String(255), nullable=False),
    # 0 for ever.
    Column("days", Integer, nullable=False),
    Column("update_time", Timestamp(), nullable=False),
    **TABLE_OPTIONS,
)

# Up to where all events of a shard have expired or never will. From the beginning again
# whenever a rule is put.
expiry_cursors = Table(
    "expiry_cursors",
    metadata,
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),
    **TABLE_OPTIONS,
)

# Which people a store wants no events of. An id is there as its keyed hash.
suppressions = Table(
    "suppressions",
    metadata,
    Column("store_uid", Uid("sto"), primary_key=True),
    Column("digest", _HASH, primary_key=True),
    # False once it was lifted, until all replicas know.
    Column("active", SmallInteger, nullable=False),
    # Where and when, by `log_heads.suppression_revision`, it changed last.
    Column("shard", Integer, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("change_time", Timestamp(), nullable=False),
    # When the person was erased, if they were: they are erased again should a backup that is
    # restored bring them back.
    Column("erase_time", Timestamp(), nullable=True),
    Index("ix_suppressions_by_revision", "shard", "revision"),
    **TABLE_OPTIONS,
)

# By which ids events of the log can be found. An id is there as its keyed hash.
event_people = Table(
    "event_people",
    metadata,
    Column("store_uid", Uid("sto"), primary_key=True),
    Column("digest", _HASH, primary_key=True),
    Column("event_id", BigInteger, primary_key=True, autoincrement=False),
    **TABLE_OPTIONS,
)

# How far each shard is in `event_people`.
people_cursors = Table(
    "people_cursors",
    metadata,
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),
    **TABLE_OPTIONS,
)

# How many events got each verdict, by store and by the hour in which they were received
# (hours since 1970). Written in the transaction that stores the events.
verdict_hours = Table(
    "verdict_hours",
    metadata,
    Column("store_uid", Uid("sto"), primary_key=True),
    Column("hour", Integer, primary_key=True, autoincrement=False),
    Column("verdict", SmallInteger, primary_key=True, autoincrement=False),
    Column("event_count", BigInteger, nullable=False),
    **TABLE_OPTIONS,
)

# Events that could not be stored, until they are replayed or their time is up.
rejected_events = Table(
    "rejected_events",
    metadata,
    *identity_columns("rej"),
    Column("store_uid", Uid("sto"), nullable=False),
    # Of the message id, which is the row's uid if the sender's could not be read.
    Column("message_key", _HASH, nullable=False),
    Column("message_id", String(255), nullable=False),
    # What could be read of the event; 0 or empty if it couldn't.
    Column("type", SmallInteger, nullable=False),
    Column("name", String(255), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("anonymous_id", String(255), nullable=False),
    Column("code", String(64), nullable=False),
    Column("path", String(255), nullable=False),
    Column("message", String(1000), nullable=False),
    Column("receive_time", Timestamp(), nullable=False),
    # What else came with the event and is needed to read it again, as JSON.
    Column("arrival", LargeBinary(), nullable=False),
    Column("payload", _BLOB, nullable=False),
    # As it was sent, if it has been fixed since.
    Column("original_payload", _BLOB, nullable=True),
    Column("fix_time", Timestamp(), nullable=True),
    UniqueConstraint("store_uid", "message_key"),
    Index("ix_rejected_events_store_uid_id", "store_uid", "id"),
    # Counts by reason are read from the index alone.
    Index("ix_rejected_events_reason", "store_uid", "code", "path", "name", "receive_time"),
    **TABLE_OPTIONS,
)

# Which events were beyond the quota, of which nothing else is kept.
quota_receipts = Table(
    "quota_receipts",
    metadata,
    Column("id", private_key(), primary_key=True, autoincrement=True),
    Column("store_uid", Uid("sto"), nullable=False),
    Column("message_key", _HASH, nullable=False),
    Column("receive_time", Timestamp(), nullable=False),
    UniqueConstraint("store_uid", "message_key"),
    **TABLE_OPTIONS,
)

# How far the log has what a replica kept in a journal while the database was away. A journal
# has a row from its first record that is in the log until it is empty.
journal_cursors = Table(
    "journal_cursors",
    metadata,
    Column("journal_uid", _HASH, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("shard", Integer, nullable=False, server_default="0"),
    **TABLE_OPTIONS,
)

# How a store wants its events to be treated. A store without a row has the defaults.
store_settings = Table(
    "store_settings",
    metadata,
    Column("store_uid", Uid("sto"), primary_key=True),
    Column("address_storage", SmallInteger, nullable=False),
    Column("catalogue_mode", SmallInteger, nullable=False),
    # Null for no quota.
    Column("daily_quota", BigInteger, nullable=True),
    Column("rejected_days", Integer, nullable=False),
    # Grows with each change of the settings or of a plan, which is how replicas learn of it.
    Column("revision", BigInteger, nullable=False),
    Column("update_time", Timestamp(), nullable=False),
    Index("ix_store_settings_update_time", "update_time"),
    **TABLE_OPTIONS,
)

# What a store expects of its events of one name.
tracking_plans = Table(
    "tracking_plans",
    metadata,
    *identity_columns("plan"),
    Column("store_uid", Uid("sto"), nullable=False),
    Column("event_key", _HASH, nullable=False),
    Column("event_name", String(255), nullable=False),
    Column("mode", SmallInteger, nullable=False),
    Column("version", Integer, nullable=False),
    *lifecycle_columns(),
    UniqueConstraint("store_uid", "event_key"),
    Index("ix_tracking_plans_purge_time", "purge_time"),
    **TABLE_OPTIONS,
)

# Every schema that a plan has had.
tracking_plan_versions = Table(
    "tracking_plan_versions",
    metadata,
    Column("plan_id", BigInteger, primary_key=True, autoincrement=False),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("schema", _BLOB, nullable=False),
    Column("create_time", Timestamp(), nullable=False),
    **TABLE_OPTIONS,
)
