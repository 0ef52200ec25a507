"""By which ids events of the log can be found."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0035"
down_revision = "0034"


def upgrade() -> None:
    op.create_table(
        "event_people",
        sa.Column("store_uid", mysql.BINARY(16), primary_key=True),
        sa.Column("digest", mysql.BINARY(16), primary_key=True),
        sa.Column("event_id", sa.BigInteger(), primary_key=True, autoincrement=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
