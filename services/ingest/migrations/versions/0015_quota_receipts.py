"""Which events were beyond the quota."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_table(
        "quota_receipts",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("store_uid", mysql.BINARY(16), nullable=False),
        sa.Column("message_key", mysql.BINARY(16), nullable=False),
        sa.Column("receive_time", mysql.DATETIME(fsp=6), nullable=False),
        sa.UniqueConstraint("store_uid", "message_key"),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
