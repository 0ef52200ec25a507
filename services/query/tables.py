"""Query's tables: how far it has read the log, the read models, and the listing."""

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
from common.purged_stores import add_purged_stores_table

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
add_purged_stores_table(metadata)

# The figures can be made anew from the log, beside those that answer meanwhile.
generations = Table(
    "generations",
    metadata,
    Column("generation", SmallInteger, primary_key=True, autoincrement=False),
    # 1: being built, 2: the one that answers, 3: replaced.
    Column("state", SmallInteger, nullable=False),
    **TABLE_OPTIONS,
)

generation_cursors = Table(
    "generation_cursors",
    metadata,
    Column("generation", SmallInteger, primary_key=True, autoincrement=False),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    # The read models hold the events of the shard up to this one.
    Column("position", BigInteger, nullable=False),
    # All events that were stored before this time are among them. Null until known.
    Column("as_of_time", Timestamp(), nullable=True),
    # They are as this change of the log left them. The same in all that follow the log.
    Column("change_number", BigInteger, nullable=False, server_default="0"),
    **TABLE_OPTIONS,
)


# SQLite then keeps the rows in their key's tree, and not in one beside it.
_FIGURES_OPTIONS = {**TABLE_OPTIONS, "sqlite_with_rowid": False}


def _of_a_store() -> list[Column[Any]]:
    """What the key of each figure begins with."""
    return [
        Column("generation", SmallInteger, primary_key=True, autoincrement=False),
        Column("store_uid", Uid("sto"), primary_key=True),
    ]


def _digest(name: str, *, primary_key: bool = False) -> Column[Any]:
    """16 bytes that stand for an id of any length."""
    binary = LargeBinary(16).with_variant(mysql.BINARY(16), "mysql", "mariadb")
    return Column(name, binary, primary_key=primary_key, nullable=False)


tallies = Table(
    "tallies",
    metadata,
    *_of_a_store(),
    # The number of a `Measure`; below 100, of Ingest's `EventType`.
    Column("measure", SmallInteger, primary_key=True, autoincrement=False),
    # A number, not a time: every dialect can divide it into the periods of a report.
    Column("quarter", Integer, primary_key=True, autoincrement=False),
    # Of `track` events their name, of others their type, such as `page`.
    Column("name", ExactText(), primary_key=True),
    Column("tally", BigInteger, nullable=False),
    **_FIGURES_OPTIONS,
)

# The same by day in UTC, for ranges of many days.
tally_days = Table(
    "tally_days",
    metadata,
    *_of_a_store(),
    Column("measure", SmallInteger, primary_key=True, autoincrement=False),
    # Its number since 1970.
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("name", ExactText(), primary_key=True),
    Column("tally", BigInteger, nullable=False),
    **_FIGURES_OPTIONS,
)

visits = Table(
    "visits",
    metadata,
    *_of_a_store(),
    Column("quarter", Integer, primary_key=True, autoincrement=False),
    _digest("subject", primary_key=True),
    # For who is erased: that none is left is looked up, not searched for.
    Index("ix_visits_by_subject", "generation", "store_uid", "subject"),
    **_FIGURES_OPTIONS,
)

owners = Table(
    "owners",
    metadata,
    *_of_a_store(),
    # An anonymous id, and the user that it belongs to.
    _digest("subject", primary_key=True),
    _digest("user"),
    Column("identify_time", Timestamp(), nullable=False),
    Index("ix_owners_by_user", "generation", "store_uid", "user"),
    **_FIGURES_OPTIONS,
)

representatives = Table(
    "representatives",
    metadata,
    *_of_a_store(),
    # A user, and the least of all that are the same person. Who stands for themselves is left out.
    _digest("subject", primary_key=True),
    _digest("representative"),
    Index(
        "ix_representatives_by_representative",
        "generation",
        "store_uid",
        "representative",
    ),
    **_FIGURES_OPTIONS,
)

sessions = Table(
    "sessions",
    metadata,
    *_of_a_store(),
    _digest("subject", primary_key=True),
    Column("start_time", Timestamp(), primary_key=True),
    _digest("start_mark", primary_key=True),
    Column("end_time", Timestamp(), nullable=False),
    # When it began, and how long it was, in microseconds.
    Column("quarter", Integer, nullable=False),
    Column("entry_page", ExactText(), nullable=False),
    Column("exit_page", ExactText(), nullable=False),
    Column("campaign", ExactText(), nullable=False),
    Column("referrer", ExactText(), nullable=False),
    Column("bounce_count", SmallInteger, nullable=False),
    Column("page_count", Integer, nullable=False),
    Column("duration", BigInteger, nullable=False),
    # All of it, with what it is made of, in MessagePack.
    Column("session", LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql"), nullable=False),
    Index("ix_sessions_by_quarter", "generation", "store_uid", "quarter"),
    **_FIGURES_OPTIONS,
)

session_sums = Table(
    "session_sums",
    metadata,
    *_of_a_store(),
    # When the sessions began.
    Column("quarter", Integer, primary_key=True, autoincrement=False),
    Column("session_count", BigInteger, nullable=False),
    Column("bounce_count", BigInteger, nullable=False),
    Column("page_count", BigInteger, nullable=False),
    # In microseconds.
    Column("duration", BigInteger, nullable=False),
    **_FIGURES_OPTIONS,
)

# What would else be summed from all sessions of a report's range, which are ever more.
session_days = Table(
    "session_days",
    metadata,
    *_of_a_store(),
    # The number of a `SessionDimension`.
    Column("dimension", SmallInteger, primary_key=True, autoincrement=False),
    # The day in UTC on which the sessions began: its number since 1970.
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("value", ExactText(), primary_key=True),
    Column("session_count", BigInteger, nullable=False),
    Column("bounce_count", BigInteger, nullable=False),
    Column("page_count", BigInteger, nullable=False),
    Column("duration", BigInteger, nullable=False),
    **_FIGURES_OPTIONS,
)

orders = Table(
    "orders",
    metadata,
    *_of_a_store(),
    # Stands for the order's id.
    _digest("order_key", primary_key=True),
    Column("order_id", ExactText(), nullable=False),
    # All that was told of it, in MessagePack.
    Column("told", LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql"), nullable=False),
    **_FIGURES_OPTIONS,
)

# Money is in ten-thousandths of the currency's unit.
revenue = Table(
    "revenue",
    metadata,
    *_of_a_store(),
    Column("quarter", Integer, primary_key=True, autoincrement=False),
    Column("currency", String(3), primary_key=True),
    Column("trust", SmallInteger, primary_key=True, autoincrement=False),
    Column("order_count", BigInteger, nullable=False),
    Column("gross", BigInteger, nullable=False),
    Column("refund_count", BigInteger, nullable=False),
    Column("refunded", BigInteger, nullable=False),
    Column("cancellation_count", BigInteger, nullable=False),
    Column("cancelled", BigInteger, nullable=False),
    **_FIGURES_OPTIONS,
)

product_sales = Table(
    "product_sales",
    metadata,
    *_of_a_store(),
    Column("quarter", Integer, primary_key=True, autoincrement=False),
    Column("product_id", ExactText(), primary_key=True),
    Column("currency", String(3), primary_key=True),
    Column("order_count", BigInteger, nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("revenue", BigInteger, nullable=False),
    **_FIGURES_OPTIONS,
)

products = Table(
    "products",
    metadata,
    *_of_a_store(),
    Column("product_id", ExactText(), primary_key=True),
    # As it was called last: by quarter, so that it isn't written each time it is named.
    Column("name", ExactText(), nullable=False),
    Column("name_quarter", Integer, nullable=False),
    **_FIGURES_OPTIONS,
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
    # As in `tallies`.
    Column("name", ExactText(), nullable=False),
    # What a page or screen is called; of other types empty.
    Column("page_name", String(255), nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("anonymous_id", String(255), nullable=False),
    Column("occur_time", Timestamp(), nullable=False),
    Column("receive_time", Timestamp(), nullable=False),
    Column("payload", LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql"), nullable=False),
    # The number of `Trust`.
    Column("trust", SmallInteger, nullable=False, server_default="1"),
    Column("device", String(16), nullable=False, server_default=""),
    Column("browser", String(255), nullable=False, server_default=""),
    Column("consent", String(255), nullable=False, server_default=""),
    Index("ix_recorded_events_by_time", "store_uid", "occur_time", "id"),
    Index("ix_recorded_events_by_name", "store_uid", "name", "occur_time", "id"),
    Index("ix_recorded_events_by_person", "store_uid", "user_id", "anonymous_id"),
    **TABLE_OPTIONS,
)

# Which events of the listing the log's changes overwrote, so that its copies can follow.
listed_changes = Table(
    "listed_changes",
    metadata,
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", BigInteger, nullable=False),
    **TABLE_OPTIONS,
)

# Expired events of which the figures are held by generation 0, and so carried over into each new
# one. What is left of them in the log is not counted again.
carried_events = Table(
    "carried_events",
    metadata,
    Column("event_id", BigInteger, primary_key=True, autoincrement=False),
    **TABLE_OPTIONS,
)

# How far each copy of the listing is, in the columns of a replica. It says so now and then.
column_copies = Table(
    "column_copies",
    metadata,
    Column("uid", Uid("copy"), primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("change_number", BigInteger, nullable=False),
    Column("report_time", Timestamp(), nullable=False),
    **TABLE_OPTIONS,
)

# Not figures, but what a job has noticed.
silent_events = Table(
    "silent_events",
    metadata,
    Column("store_uid", Uid("sto"), primary_key=True),
    Column("type", SmallInteger, primary_key=True, autoincrement=False),
    Column("name", ExactText(), primary_key=True),
    Column("silent_since", Timestamp(), nullable=False),
    **TABLE_OPTIONS,
)

FIGURES = (
    tallies,
    tally_days,
    visits,
    owners,
    representatives,
    sessions,
    session_sums,
    session_days,
    orders,
    revenue,
    product_sales,
    products,
)
"""What each generation has of its own."""
