"""Tells who was erased from who is kept out only."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0039"
down_revision = "0038"


def upgrade() -> None:
    op.add_column("suppressions", sa.Column("erase_time", mysql.DATETIME(fsp=6), nullable=True))
