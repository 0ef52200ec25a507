"""Finds the stores that are due to be purged."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_index("ix_stores_purge_time", "stores", ["purge_time"])
