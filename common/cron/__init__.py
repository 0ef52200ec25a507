"""Scheduled tasks that run once: a ledger says what ran, a mutex saves the others the work."""
