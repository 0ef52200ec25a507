"""Finds the plans that are due to be purged."""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_index("ix_tracking_plans_purge_time", "tracking_plans", ["purge_time"])
