"""Empties the listing, which is projected anew from the log with all that follows."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("DELETE FROM recorded_events")
