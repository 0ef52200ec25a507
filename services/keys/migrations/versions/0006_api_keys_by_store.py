"""Finds the keys of a store."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_index("ix_api_keys_store_id", "api_keys", ["store_id"])
