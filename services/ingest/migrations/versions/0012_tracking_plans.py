"""What a store expects of its events."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "tracking_plans",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("uid", mysql.BINARY(16), nullable=False),
        sa.Column("store_uid", mysql.BINARY(16), nullable=False),
        sa.Column("event_key", mysql.BINARY(16), nullable=False),
        sa.Column("event_name", sa.String(255), nullable=False),
        sa.Column("mode", sa.SmallInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("create_time", mysql.DATETIME(fsp=6), nullable=False),
        sa.Column("update_time", mysql.DATETIME(fsp=6), nullable=False),
        sa.Column("delete_time", mysql.DATETIME(fsp=6), nullable=True),
        sa.Column("purge_time", mysql.DATETIME(fsp=6), nullable=True),
        sa.UniqueConstraint("uid"),
        sa.UniqueConstraint("store_uid", "event_key"),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
