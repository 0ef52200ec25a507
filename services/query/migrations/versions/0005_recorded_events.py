"""The events as they are listed."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "recorded_events",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("uid", mysql.BINARY(16), nullable=False),
        sa.Column("store_uid", mysql.BINARY(16), nullable=False),
        sa.Column("message_id", sa.String(255), nullable=False),
        sa.Column("type", sa.SmallInteger(), nullable=False),
        sa.Column("name", mysql.VARBINARY(1020), nullable=False),
        sa.Column("page_name", sa.String(255), nullable=False),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("anonymous_id", sa.String(255), nullable=False),
        sa.Column("occur_time", mysql.DATETIME(fsp=6), nullable=False),
        sa.Column("receive_time", mysql.DATETIME(fsp=6), nullable=False),
        sa.Column(
            "payload", sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql"), nullable=False
        ),
        sa.UniqueConstraint("uid"),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
