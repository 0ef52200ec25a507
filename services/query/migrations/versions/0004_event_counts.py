"""The events of each store by quarter of an hour and name."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "event_counts",
        sa.Column("store_uid", mysql.BINARY(16), primary_key=True),
        sa.Column("quarter", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("name", mysql.VARBINARY(1020), primary_key=True),
        sa.Column("event_count", sa.BigInteger(), nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
