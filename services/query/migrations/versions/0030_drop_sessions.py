"""Makes room for sessions that hold what they are made of."""

from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    op.drop_table("sessions")
