"""When a deleted key may leave for good."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("purge_time", mysql.DATETIME(fsp=6), nullable=True))
