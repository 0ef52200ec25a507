"""Finds a person's events in the listing."""

from alembic import op

revision = "0050"
down_revision = "0049"


def upgrade() -> None:
    op.create_index(
        "ix_recorded_events_by_person", "recorded_events", ["store_uid", "user_id", "anonymous_id"]
    )
