"""The events that used to happen and don't any more."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0037"
down_revision = "0036"


def upgrade() -> None:
    op.create_table(
        "silent_events",
        sa.Column("store_uid", mysql.BINARY(16), primary_key=True),
        sa.Column("type", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("name", mysql.VARBINARY(1020), primary_key=True),
        sa.Column("silent_since", mysql.DATETIME(fsp=6), nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
