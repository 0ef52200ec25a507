"""When and by what keys were last used."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "key_uses",
        sa.Column(
            "key_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("use_time", mysql.DATETIME(fsp=6), nullable=True),
        sa.Column("origin", sa.String(255), nullable=False),
        sa.Column("sdk", sa.String(64), nullable=False),
        sa.Column("expose_time", mysql.DATETIME(fsp=6), nullable=True),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
