"""How old a key gets before it is rotated."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("rotate_seconds", sa.Integer(), nullable=True))
