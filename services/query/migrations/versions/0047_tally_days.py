"""What is counted by day and name."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0047"
down_revision = "0046"


def upgrade() -> None:
    op.create_table(
        "tally_days",
        sa.Column("generation", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("store_uid", mysql.BINARY(16), primary_key=True),
        sa.Column("measure", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("day", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("name", mysql.VARBINARY(1020), primary_key=True),
        sa.Column("tally", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
