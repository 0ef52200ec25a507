"""Sums what has been counted by day."""

from alembic import op

revision = "0048"
down_revision = "0047"


def upgrade() -> None:
    op.execute(
        "INSERT INTO tally_days"
        " SELECT generation, store_uid, measure, (quarter - quarter % 96) / 96, name, SUM(tally)"
        " FROM tallies GROUP BY generation, store_uid, measure, (quarter - quarter % 96) / 96, name"
    )
