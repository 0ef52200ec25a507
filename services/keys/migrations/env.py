"""Runs Keys's migrations over the connection that `common.migrate` opened."""

from common.migrate import run_migrations
from services.keys.tables import metadata

run_migrations(metadata)
