"""Sessions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("generation", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("store_uid", mysql.BINARY(16), primary_key=True),
        sa.Column("subject", mysql.BINARY(16), primary_key=True),
        sa.Column("start_time", mysql.DATETIME(fsp=6), primary_key=True),
        sa.Column("start_mark", mysql.BINARY(16), primary_key=True),
        sa.Column("end_time", mysql.DATETIME(fsp=6), nullable=False),
        sa.Column("end_mark", mysql.BINARY(16), nullable=False),
        sa.Column("hit_count", sa.Integer(), nullable=False),
        sa.Column("page_count", sa.Integer(), nullable=False),
        sa.Column("action_count", sa.Integer(), nullable=False),
        sa.Column("entry_page", mysql.VARBINARY(1020), nullable=False),
        sa.Column("exit_page", mysql.VARBINARY(1020), nullable=False),
        sa.Column("campaign", mysql.VARBINARY(1020), nullable=False),
        sa.Column("referrer", mysql.VARBINARY(1020), nullable=False),
        sa.Column("quarter", sa.Integer(), nullable=False),
        sa.Column("duration", sa.BigInteger(), nullable=False),
        sa.Column("bounced", sa.SmallInteger(), nullable=False),
        sqlite_with_rowid=False,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
