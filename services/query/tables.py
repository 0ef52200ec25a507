"""Query's tables: how far it has read the log, and the read models."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    TypeDecorator,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

from common.cron.tables import add_cron_tables
from common.db import TABLE_OPTIONS, Timestamp, Uid, private_key

_LONGEST_NAME_BYTES = 4 * 255


class ExactText(TypeDecorator[str]):
    """A short text that is compared byte by byte.

    In `utf8mb4_bin`, `Viewed` equals `Viewed ` with a space behind it: MySQL pads.
    """

    impl = LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.VARBINARY(_LONGEST_NAME_BYTES))
        return dialect.type_descriptor(LargeBinary(_LONGEST_NAME_BYTES))

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        return None if value is None else value.encode()

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:
        return None if value is None else value.decode()


metadata = MetaData()
add_cron_tables(metadata)

cursors = Table(
    "cursors",
    metadata,
    Column("shard", Integer, primary_key=True, autoincrement=False),
    # The read models hold the events of the shard up to this one.
    Column("position", BigInteger, nullable=False),
    # All events that were stored before this time are among them. Null until known.
    Column("as_of_time", Timestamp(), nullable=True),
    **TABLE_OPTIONS,
)

event_counts = Table(
    "event_counts",
    metadata,
    Column("store_uid", Uid("sto"), primary_key=True),
    # A number, not a time: every dialect can divide it into the periods of a report.
    Column("quarter", Integer, primary_key=True, autoincrement=False),
    # Of `track` events their name, of others their type, such as `page`.
    Column("name", ExactText(), primary_key=True),
    Column("event_count", BigInteger, nullable=False),
    **TABLE_OPTIONS,
)

recorded_events = Table(
    "recorded_events",
    metadata,
    # The place in the log: the shard in the bits above 48, the position below.
    Column("id", private_key(), primary_key=True, autoincrement=False),
    Column("uid", Uid("evt"), nullable=False, unique=True),
    Column("store_uid", Uid("sto"), nullable=False),
    Column("message_id", String(255), nullable=False),
    # The number of Ingest's `EventType`.
    Column("type", SmallInteger, nullable=False),
    # As in `event_counts`.
    Column("name", ExactText(), nullable=False),
    # What a page or screen is called; of other types empty.
    Column("page_name", String(255), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("anonymous_id", String(255), nullable=False),
    Column("occur_time", Timestamp(), nullable=False),
    Column("receive_time", Timestamp(), nullable=False),
    Column("payload", LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql"), nullable=False),
    Index("ix_recorded_events_by_time", "store_uid", "occur_time", "id"),
    Index("ix_recorded_events_by_name", "store_uid", "name", "occur_time", "id"),
    **TABLE_OPTIONS,
)
