"""What Ingest found out about an event."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("events", sa.Column("enrichment", sa.LargeBinary(), nullable=True))
