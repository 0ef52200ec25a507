"""Maintenance's configuration."""

from common.config import ServiceConfig


class MaintenanceConfig(ServiceConfig, env_prefix="MAINTENANCE_"):
    """The variables that begin with `MAINTENANCE_`."""
