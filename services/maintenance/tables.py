"""Maintenance's own tables."""

from sqlalchemy import MetaData

from common.cron.tables import add_cron_tables

metadata = MetaData()
add_cron_tables(metadata)
