"""Keeps with the events that are listed the browser that Ingest found out."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    op.add_column(
        "recorded_events",
        sa.Column("browser", sa.String(255), nullable=False, server_default=""),
    )
