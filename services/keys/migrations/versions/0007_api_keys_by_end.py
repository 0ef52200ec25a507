"""Finds the keys that have expired, and those that ended long ago."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_index(
        "ix_api_keys_revoke_time_expire_time", "api_keys", ["revoke_time", "expire_time"]
    )
