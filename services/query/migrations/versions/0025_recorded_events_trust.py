"""Tells events that the shop itself vouches for from those that anybody may have made up."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    op.add_column(
        "recorded_events",
        sa.Column("trust", sa.SmallInteger(), nullable=False, server_default="1"),
    )
