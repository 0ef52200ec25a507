"""Counts a store's rejected events by reason."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_index(
        "ix_rejected_events_reason",
        "rejected_events",
        ["store_uid", "code", "path", "name", "receive_time"],
    )
