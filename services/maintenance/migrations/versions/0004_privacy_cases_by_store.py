"""Finds a store's privacy cases."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_index("ix_privacy_cases_by_store", "privacy_cases", ["store_uid", "id"])
