"""Who did something in a quarter of an hour."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "visits",
        sa.Column("generation", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("store_uid", mysql.BINARY(16), primary_key=True),
        sa.Column("quarter", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("subject", mysql.BINARY(16), primary_key=True),
        sqlite_with_rowid=False,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
