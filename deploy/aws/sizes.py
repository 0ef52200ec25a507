"""What differs between a small, a medium and a large deployment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything there is."""

    name: str
    nat_gateways: int
    """One zone's loss takes the ways out of all others with it, if there is but one."""
    node_type: str
    nodes: int
    """At the beginning, and at least."""
    most_nodes: int
    database_type: str
    database_readers: int
    """Replicas that take over; nothing reads from them."""
    cache_type: str
    cache_replicas: int
    backup_days: int
    """How far back the database can be brought. What is erased stays in backups as long."""
    log_days: int
    certificate_authority: str = "rds-ca-rsa2048-g1"


SIZES = {
    size.name: size
    for size in (
        Size(
            name="small",
            nat_gateways=1,
            node_type="m7i.xlarge",
            nodes=3,
            most_nodes=5,
            database_type="r7g.large",
            database_readers=1,
            cache_type="cache.t4g.small",
            cache_replicas=1,
            backup_days=14,
            log_days=30,
        ),
        Size(
            name="medium",
            nat_gateways=3,
            node_type="m7i.2xlarge",
            nodes=3,
            most_nodes=9,
            database_type="r7g.xlarge",
            database_readers=1,
            cache_type="cache.m7g.large",
            cache_replicas=1,
            backup_days=30,
            log_days=90,
        ),
        Size(
            name="large",
            nat_gateways=3,
            node_type="m7i.4xlarge",
            nodes=6,
            most_nodes=18,
            database_type="r7g.4xlarge",
            database_readers=2,
            cache_type="cache.m7g.large",
            cache_replicas=2,
            backup_days=35,
            log_days=90,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where it is put."""

    region: str = "us-east-1"
    network: str = "10.20.0.0/16"
    repository: str = "example/shoptrail"
    """Whose pipeline may push images, as GitHub names it."""


PLACE = Place()
SERVICES = ("ingest", "query", "keys", "maintenance")
