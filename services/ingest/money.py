"""Reads amounts of money exactly: as decimals with their currency, never as floats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

import msgspec

AMOUNTS = (
    "value",
    "revenue",
    "total",
    "subtotal",
    "shipping",
    "tax",
    "discount",
    "price",
)
"""The properties that hold amounts of money."""

_MOST_DIGITS = 15
_MOST_PLACES = 6
_CURRENCY = re.compile(r"[A-Za-z]{3}")

_Amount = Decimal | None


class MoneyNotValid(ValueError):
    """An amount is no number, out of bounds, or the currency no ISO 4217 code."""


class _Money(msgspec.Struct):
    currency: str | None = None
    value: _Amount = None
    revenue: _Amount = None
    total: _Amount = None
    subtotal: _Amount = None
    shipping: _Amount = None
    tax: _Amount = None
    discount: _Amount = None
    price: _Amount = None


_decoder = msgspec.json.Decoder(_Money)


def read_money(properties: bytes) -> Mapping[str, str]:
    """The amounts among the properties, as plain decimals such as `19.90`, and the `currency`.

    Numbers and texts are both read, digit by digit. Empty if there are no amounts.
    Amounts have at most 15 digits before the point and 6 after it; raises
    `MoneyNotValid` if one has more, or is none.
    """
    try:
        money = _decoder.decode(properties)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MoneyNotValid from None
    read: dict[str, str] = {}
    for name in AMOUNTS:
        amount: Decimal | None = getattr(money, name)
        if amount is not None:
            read[name] = _as_text(amount)
    if read and money.currency:
        if not _CURRENCY.fullmatch(money.currency):
            raise MoneyNotValid
        read["currency"] = money.currency.upper()
    return read


def _as_text(amount: Decimal) -> str:
    exponent = amount.as_tuple().exponent
    if not isinstance(exponent, int):  # Infinite, or not a number.
        raise MoneyNotValid
    if exponent < -_MOST_PLACES or amount.adjusted() >= _MOST_DIGITS:
        raise MoneyNotValid
    return format(amount, "f")
