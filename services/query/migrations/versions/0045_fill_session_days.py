"""Sums the sessions that there are by day."""

from alembic import op

revision = "0045"
down_revision = "0044"

_DIMENSIONS = ((1, "entry_page"), (2, "exit_page"), (3, "campaign"), (4, "referrer"))


def upgrade() -> None:
    each = " UNION ALL ".join(
        f"SELECT generation, store_uid, {number}, (quarter - quarter % 96) / 96, {column},"  # noqa: S608 - names of columns only
        " COUNT(*), SUM(bounce_count), SUM(page_count), SUM(duration) FROM sessions"
        f" GROUP BY generation, store_uid, (quarter - quarter % 96) / 96, {column}"
        for number, column in _DIMENSIONS
    )
    op.execute(f"INSERT INTO session_days {each}")
