"""Sessions hold what they are made of from now on."""

from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    op.drop_table("hits")
