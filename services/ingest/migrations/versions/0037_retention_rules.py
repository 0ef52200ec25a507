"""For how long stores keep events."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0037"
down_revision = "0036"


def upgrade() -> None:
    op.create_table(
        "retention_rules",
        sa.Column("store_uid", mysql.BINARY(16), primary_key=True),
        sa.Column("event_key", mysql.BINARY(16), primary_key=True),
        sa.Column("event_name", sa.String(255), nullable=False),
        sa.Column("days", sa.Integer(), nullable=False),
        sa.Column("update_time", mysql.DATETIME(fsp=6), nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
