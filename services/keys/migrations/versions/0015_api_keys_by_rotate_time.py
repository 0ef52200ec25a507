"""Finds the keys that are due to be rotated."""

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_index("ix_api_keys_rotate_time", "api_keys", ["rotate_time"])
