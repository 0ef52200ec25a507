"""How many events got each verdict."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "verdict_hours",
        sa.Column("store_uid", mysql.BINARY(16), primary_key=True),
        sa.Column("hour", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("verdict", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("event_count", sa.BigInteger(), nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
