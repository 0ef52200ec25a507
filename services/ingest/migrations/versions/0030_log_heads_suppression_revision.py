"""Tells who appends that suppressions have changed."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0020"


def upgrade() -> None:
    op.add_column(
        "log_heads",
        sa.Column("suppression_revision", sa.BigInteger(), nullable=False, server_default="0"),
    )
