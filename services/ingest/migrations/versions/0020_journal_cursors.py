"""How far the log has what replicas kept in journals."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0020"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "journal_cursors",
        sa.Column("journal_uid", mysql.BINARY(16), primary_key=True),
        sa.Column("position", sa.BigInteger(), nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
