"""What was done to stores and keys, by whom."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.create_table(
        "key_events",
        sa.Column("position", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("create_time", mysql.DATETIME(fsp=6), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("client_network", sa.String(64), nullable=False),
        sa.Column("store_uid", mysql.BINARY(16), nullable=True),
        sa.Column("key_uid", mysql.BINARY(16), nullable=True),
        sa.Column("detail", sa.String(255), nullable=False),
        sa.Column("hash", mysql.BINARY(32), nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
