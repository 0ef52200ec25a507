"""Lists a store's rejected events, the latest first."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_index("ix_rejected_events_store_uid_id", "rejected_events", ["store_uid", "id"])
