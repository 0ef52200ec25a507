"""Which people a store wants no events of."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0033"
down_revision = "0032"


def upgrade() -> None:
    op.create_table(
        "suppressions",
        sa.Column("store_uid", mysql.BINARY(16), primary_key=True),
        sa.Column("digest", mysql.BINARY(16), primary_key=True),
        sa.Column("active", sa.SmallInteger(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("change_time", mysql.DATETIME(fsp=6), nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
