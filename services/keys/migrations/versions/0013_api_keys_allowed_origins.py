"""The hosts whose pages may use a key."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("allowed_origins", sa.Text(), nullable=True))
