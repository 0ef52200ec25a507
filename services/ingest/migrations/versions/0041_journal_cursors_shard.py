"""Says of which shard of the log a journal is."""

import sqlalchemy as sa
from alembic import op

revision = "0041"
down_revision = "0040"


def upgrade() -> None:
    op.add_column(
        "journal_cursors", sa.Column("shard", sa.Integer(), nullable=False, server_default="0")
    )
