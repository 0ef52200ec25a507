"""Runs Query's migrations over the connection that `common.migrate` opened."""

from common.migrate import run_migrations
from services.query.tables import metadata

run_migrations(metadata)
