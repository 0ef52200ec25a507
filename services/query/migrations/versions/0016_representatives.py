"""Which users are the same person."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "representatives",
        sa.Column("generation", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("store_uid", mysql.BINARY(16), primary_key=True),
        sa.Column("subject", mysql.BINARY(16), primary_key=True),
        sa.Column("representative", mysql.BINARY(16), nullable=False),
        sqlite_with_rowid=False,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
