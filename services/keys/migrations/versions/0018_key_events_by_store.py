"""Finds what was done to a store."""

from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.create_index("ix_key_events_store_uid_position", "key_events", ["store_uid", "position"])
