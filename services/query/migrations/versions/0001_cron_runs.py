"""The ledger of runs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "cron_runs",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("uid", mysql.BINARY(16), nullable=False),
        sa.Column("job", sa.String(64), nullable=False),
        sa.Column("scheduled_time", mysql.DATETIME(fsp=6), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("lease_time", mysql.DATETIME(fsp=6), nullable=False),
        sa.Column("attempt_count", sa.Integer(), nullable=False),
        sa.Column("row_count", sa.BigInteger(), nullable=False),
        sa.Column("progress", sa.String(1000), nullable=False),
        sa.Column("caller", sa.String(255), nullable=False),
        sa.Column("start_time", mysql.DATETIME(fsp=6), nullable=False),
        sa.Column("end_time", mysql.DATETIME(fsp=6), nullable=True),
        sa.UniqueConstraint("uid"),
        sa.UniqueConstraint("job", "scheduled_time"),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
