"""Adds the keys that seal people's rows in backups."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "subject_keys",
        sa.Column("store_uid", sa.LargeBinary(16).with_variant(mysql.BINARY(16), "mysql")),
        sa.Column("digest", sa.LargeBinary(16).with_variant(mysql.BINARY(16), "mysql")),
        sa.Column(
            "key", sa.LargeBinary(32).with_variant(mysql.BINARY(32), "mysql"), nullable=False
        ),
        sa.PrimaryKeyConstraint("store_uid", "digest"),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
