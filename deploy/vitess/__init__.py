"""Vitess, or PlanetScale: which shard each row is on, so that what belongs together is together."""
