"""Runs the whole mesh on one machine with nothing installed but Python."""
