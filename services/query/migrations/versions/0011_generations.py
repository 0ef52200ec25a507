"""The generations of figures."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "generations",
        sa.Column("generation", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
