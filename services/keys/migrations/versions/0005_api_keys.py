"""API keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("uid", mysql.BINARY(16), nullable=False),
        sa.Column("store_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("kind", sa.String(2), nullable=False),
        sa.Column("display_name", sa.String(255), nullable=False),
        sa.Column("hint", sa.String(32), nullable=False),
        sa.Column("pepper_version", sa.Integer(), nullable=False),
        sa.Column("hash", mysql.BINARY(32), nullable=False),
        sa.Column("scopes", sa.String(255), nullable=False),
        sa.Column("create_time", mysql.DATETIME(fsp=6), nullable=False),
        sa.Column("expire_time", mysql.DATETIME(fsp=6), nullable=True),
        sa.Column("revoke_time", mysql.DATETIME(fsp=6), nullable=True),
        sa.UniqueConstraint("uid"),
        sa.UniqueConstraint("hash"),
        sa.ForeignKeyConstraint(["store_id"], ["stores.id"]),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
