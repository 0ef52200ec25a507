"""Lists a store's events of one name by time."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_index(
        "ix_recorded_events_by_name", "recorded_events", ["store_uid", "name", "occur_time", "id"]
    )
