"""Writes amounts of money."""

from decimal import Decimal

from services.query.payload import MONEY_UNIT


def as_amount(units: int) -> str:
    """A number of `MONEY_UNIT`s as a decimal number with two digits behind the point, or more."""
    whole, _, fraction = f"{Decimal(units) * MONEY_UNIT:.4f}".partition(".")
    return f"{whole}.{fraction[:2]}{fraction[2:].rstrip('0')}"
