"""Keeps with the events that are listed the consent that Ingest found out."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    op.add_column(
        "recorded_events",
        sa.Column("consent", sa.String(255), nullable=False, server_default=""),
    )
