"""Measures how fast Shoptrail is, against limits taken in the same run."""
