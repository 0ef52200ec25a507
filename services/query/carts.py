"""What events change in a visitor's cart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from services.query.orders import read_currency
from services.query.payload import LARGEST_AMOUNT, money_in, number_in, part_in

_MOST_PIECES = 1_000_000


class CartMove(IntEnum):
    """What happens to a cart. The numbers stand in the columns."""

    ADDED = 1
    REMOVED = 2
    TOUCHED = 3
    ORDERED = 4


# With the names that the first version of the specification gave them.
CART_MOVES = {
    "Product Added": CartMove.ADDED,
    "Added Product": CartMove.ADDED,
    "Product Removed": CartMove.REMOVED,
    "Removed Product": CartMove.REMOVED,
    "Cart Viewed": CartMove.TOUCHED,
    "Checkout Started": CartMove.TOUCHED,
    "Checkout Step Viewed": CartMove.TOUCHED,
    "Checkout Step Completed": CartMove.TOUCHED,
    "Payment Info Entered": CartMove.TOUCHED,
    "Order Completed": CartMove.ORDERED,
    "Completed Order": CartMove.ORDERED,
}
"""The `track` events that say something of a cart, by their names."""


@dataclass(frozen=True, slots=True)
class CartChange:
    """What a cart gains or loses."""

    pieces: int
    amount: int
    """What the pieces come to, in `MONEY_UNIT`s."""
    currency: str


NO_CHANGE = CartChange(0, 0, "")


def read_cart_change(move: CartMove, properties: Mapping[str, Any]) -> CartChange:
    """What an event takes into the cart, or out of it."""
    if move not in (CartMove.ADDED, CartMove.REMOVED):
        return NO_CHANGE
    # Some senders put the product into an object of its own.
    of = properties if "price" in properties else part_in(properties, "product") or properties
    given = number_in(of, "quantity")
    pieces = int(given) if given is not None and 0 <= given <= _MOST_PIECES else 1
    amount = (money_in(of, "price") or 0) * pieces
    return CartChange(pieces, amount if amount <= LARGEST_AMOUNT else 0, read_currency(properties))
