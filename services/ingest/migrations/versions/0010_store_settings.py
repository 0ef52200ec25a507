"""How a store wants its events to be treated."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "store_settings",
        sa.Column("store_uid", mysql.BINARY(16), primary_key=True),
        sa.Column("address_storage", sa.SmallInteger(), nullable=False),
        sa.Column("catalogue_mode", sa.SmallInteger(), nullable=False),
        sa.Column("daily_quota", sa.BigInteger(), nullable=True),
        sa.Column("rejected_days", sa.Integer(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("update_time", mysql.DATETIME(fsp=6), nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
