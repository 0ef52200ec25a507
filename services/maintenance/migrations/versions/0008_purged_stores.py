"""Notes which stores were purged, and whether what was kept of them is gone."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "purged_stores",
        sa.Column("store_uid", mysql.BINARY(16), primary_key=True),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("note_time", mysql.DATETIME(fsp=6), nullable=False),
        sa.Column("cleared", sa.SmallInteger(), nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
