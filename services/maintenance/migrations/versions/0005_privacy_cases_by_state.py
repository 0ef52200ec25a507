"""Finds the privacy cases that are due."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_index("ix_privacy_cases_by_state", "privacy_cases", ["state", "lease_time"])
