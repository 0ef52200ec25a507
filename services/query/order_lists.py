"""Reads a shop's own list of orders, as CSV or NDJSON, and names the lines that can't be read."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec

from services.query.payload import money_in, text_in

MOST_ORDERS = 50_000
MOST_BYTES = 4 * 1024 * 1024

_MOST_FAULTS = 20
_LONGEST_NUMBER = 32
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
_SEPARATORS = ",;\t"

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ListedOrder:
    """An order as the shop has it. What it doesn't say is empty."""

    order_id: str
    amount: int
    """In `MONEY_UNIT`s."""
    currency: str
    payment_method: str
    browser: str
    consent: str


class ListNotReadable(ValueError):
    """The list can't be read, as `faults` says by place."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        super().__init__(f"{len(faults)} faults")
        self.faults = faults


def read_csv(content: str) -> list[ListedOrder]:
    """The orders of a list whose first line names its fields; raises `ListNotReadable`."""
    content = content.removeprefix("\ufeff")
    header = content.partition("\n")[0]
    separator = max(_SEPARATORS, key=header.count)
    reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=separator, strict=True)

    def lines() -> Iterator[tuple[int, Fields | str]]:
        try:
            for row in reader:
                known = {key.strip(): value for key, value in row.items() if key is not None}
                yield reader.line_num, known
        except csv.Error as error:
            yield reader.reader.line_num, f"is not CSV: {error}"

    named = {name.strip() for name in reader.fieldnames or ()} if header else set()
    missing = [name for name in ("order_id", "total") if name not in named]
    if missing:
        raise ListNotReadable({"content": f"has no field {' and none '.join(missing)}"})
    return _read(lines())


def read_ndjson(content: str) -> list[ListedOrder]:
    """The orders of a list that has an object in each line; raises `ListNotReadable`."""
    decoder = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)

    def lines() -> Iterator[tuple[int, Fields | str]]:
        for number, line in enumerate(content.removeprefix("\ufeff").split("\n"), start=1):
            if not line.strip():
                continue
            try:
                yield number, decoder.decode(line)
            except (msgspec.DecodeError, ArithmeticError, RecursionError, ValueError):
                yield number, "is not a JSON object"

    return _read(lines())


def _read(lines: Iterator[tuple[int, Fields | str]]) -> list[ListedOrder]:
    orders: list[ListedOrder] = []
    faults: dict[str, str] = {}
    for number, fields in lines:
        found = fields if isinstance(fields, str) else _read_order(fields)
        if isinstance(found, str):
            faults[f"content:{number}"] = found
            if len(faults) == _MOST_FAULTS:
                break
        elif len(orders) == MOST_ORDERS:
            faults["content"] = f"has more than {MOST_ORDERS} orders"
            break
        else:
            orders.append(found)
    if faults:
        raise ListNotReadable(faults)
    return orders


def _read_order(fields: Fields) -> ListedOrder | str:
    """The order, or what is wrong with it."""
    order_id = text_in(fields, "order_id")
    if not order_id:
        return "has no order_id"
    total = fields.get("total")
    if isinstance(total, str):
        total = total.strip()
        if not _NUMBER.fullmatch(total) or len(total) > _LONGEST_NUMBER:
            return "has a total that is not a decimal number such as 1234.50"
    amount = money_in({"total": total}, "total")
    if amount is None:
        return "has a total that is no amount: it must be from 0 to 10000000000"
    currency = text_in(fields, "currency").upper()
    if currency and not _CURRENCY.fullmatch(currency):
        return "has a currency that is not a code of three letters"
    return ListedOrder(
        order_id=order_id,
        amount=amount,
        currency=currency,
        payment_method=text_in(fields, "payment_method"),
        browser=text_in(fields, "browser"),
        consent=text_in(fields, "consent"),
    )
