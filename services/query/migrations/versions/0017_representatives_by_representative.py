"""Finds all users that are a person."""

from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.create_index(
        "ix_representatives_by_representative",
        "representatives",
        ["generation", "store_uid", "representative"],
    )
