"""Finds the keys that are due to be purged."""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_index("ix_api_keys_purge_time", "api_keys", ["purge_time"])
