"""How often the sessions of a key were ended."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("session_epoch", sa.Integer(), nullable=True))
