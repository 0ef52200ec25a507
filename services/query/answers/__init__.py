"""Answers what is asked of the columns: a module for each kind of report."""
