"""Finds the sessions that began in a range."""

from alembic import op

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    op.create_index("ix_sessions_by_quarter", "sessions", ["generation", "store_uid", "quarter"])
