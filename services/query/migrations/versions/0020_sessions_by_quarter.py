"""Finds sessions by when they began."""

from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.create_index("ix_sessions_by_quarter", "sessions", ["generation", "store_uid", "quarter"])
