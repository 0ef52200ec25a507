"""Ingest: accepts events and keeps them, in the order of their commits."""
