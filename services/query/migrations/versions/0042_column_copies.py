"""How far each copy of the listing is."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0042"
down_revision = "0041"


def upgrade() -> None:
    op.create_table(
        "column_copies",
        sa.Column("uid", mysql.BINARY(16), primary_key=True),
        sa.Column("shard", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("change_number", sa.BigInteger(), nullable=False),
        sa.Column("report_time", mysql.DATETIME(fsp=6), nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
