"""What was told of each order."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.create_table(
        "orders",
        sa.Column("generation", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("store_uid", mysql.BINARY(16), primary_key=True),
        sa.Column("order_key", mysql.BINARY(16), primary_key=True),
        sa.Column("order_id", mysql.VARBINARY(1020), nullable=False),
        sa.Column(
            "told", sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql"), nullable=False
        ),
        sqlite_with_rowid=False,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
