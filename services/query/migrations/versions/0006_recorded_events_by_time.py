"""Lists a store's events by time."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_index(
        "ix_recorded_events_by_time", "recorded_events", ["store_uid", "occur_time", "id"]
    )
