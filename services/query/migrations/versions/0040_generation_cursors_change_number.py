"""Says up to which change of the log the figures are right."""

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0037"


def upgrade() -> None:
    op.add_column(
        "generation_cursors",
        sa.Column("change_number", sa.BigInteger(), nullable=False, server_default="0"),
    )
