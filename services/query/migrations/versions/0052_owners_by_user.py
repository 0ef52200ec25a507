"""Finds the browsers of a user."""

from alembic import op

revision = "0052"
down_revision = "0051"


def upgrade() -> None:
    op.create_index("ix_owners_by_user", "owners", ["generation", "store_uid", "user"])
