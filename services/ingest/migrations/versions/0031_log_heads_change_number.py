"""Counts what was overwritten in the log."""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    op.add_column(
        "log_heads",
        sa.Column("change_number", sa.BigInteger(), nullable=False, server_default="0"),
    )
