"""The key that was made in a key's place."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("successor_uid", mysql.BINARY(16), nullable=True))
