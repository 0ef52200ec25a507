"""Has the figures made anew: those of before may lack days that the version before has counted."""

from alembic import op

revision = "0049"
down_revision = "0048"


def upgrade() -> None:
    # 1: being built. Where there are no figures yet, there is nothing to make anew.
    op.execute(
        "INSERT INTO generations (generation, state)"
        " SELECT found.latest + 1, 1 FROM"
        " (SELECT MAX(generation) AS latest, MIN(state) AS least FROM generations) AS found"
        " WHERE found.least > 1"
    )
