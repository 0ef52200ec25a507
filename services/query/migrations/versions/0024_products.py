"""What products are called."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    op.create_table(
        "products",
        sa.Column("generation", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("store_uid", mysql.BINARY(16), primary_key=True),
        sa.Column("product_id", mysql.VARBINARY(1020), primary_key=True),
        sa.Column("name", mysql.VARBINARY(1020), nullable=False),
        sa.Column("name_time", mysql.DATETIME(fsp=6), nullable=False),
        sa.Column("name_mark", mysql.BINARY(16), nullable=False),
        sqlite_with_rowid=False,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
