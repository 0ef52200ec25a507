"""Makes room for tallies, which tell types of events apart."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.drop_table("event_counts")
