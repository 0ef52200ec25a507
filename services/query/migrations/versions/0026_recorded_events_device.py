"""Keeps with the events that are listed the device that Ingest found out."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    op.add_column(
        "recorded_events",
        sa.Column("device", sa.String(16), nullable=False, server_default=""),
    )
