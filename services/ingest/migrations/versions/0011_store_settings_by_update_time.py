"""Finds the settings that changed lately."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_index("ix_store_settings_update_time", "store_settings", ["update_time"])
