"""What sessions are made of."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.create_table(
        "hits",
        sa.Column("generation", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("store_uid", mysql.BINARY(16), primary_key=True),
        sa.Column("subject", mysql.BINARY(16), primary_key=True),
        sa.Column("occur_time", mysql.DATETIME(fsp=6), primary_key=True),
        sa.Column("mark", mysql.BINARY(16), primary_key=True),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("page", mysql.VARBINARY(1020), nullable=False),
        sa.Column("campaign", mysql.VARBINARY(1020), nullable=False),
        sa.Column("referrer", mysql.VARBINARY(1020), nullable=False),
        sqlite_with_rowid=False,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
