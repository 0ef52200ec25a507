"""Finds the suppressions that are new."""

from alembic import op

revision = "0034"
down_revision = "0033"


def upgrade() -> None:
    op.create_index("ix_suppressions_by_revision", "suppressions", ["shard", "revision"])
