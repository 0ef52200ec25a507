"""Finds a person's visits."""

from alembic import op

revision = "0051"
down_revision = "0050"


def upgrade() -> None:
    op.create_index("ix_visits_by_subject", "visits", ["generation", "store_uid", "subject"])
