"""Makes room for a cursor of each generation."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.drop_table("cursors")
