"""When a key is rotated by itself."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("rotate_time", mysql.DATETIME(fsp=6), nullable=True))
