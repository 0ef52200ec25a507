"""Keeps no more of a network address than the store's settings allow."""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network


class AddressStorage(IntEnum):
    """How much of an address is stored. The numbers are those of the proto and of the table."""

    OFF = 1
    TRUNCATED = 2
    FULL = 3


_KEPT_BITS = {4: 24, 6: 48}
_LONGEST_ADDRESS = 45

_FIELD = re.compile(rb'("ip"\s*:\s*")((?:[^"\\]|\\.)*)"')
_MAY_HOLD_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+|[0-9a-fA-F]*:[0-9a-fA-F]*:|\\")


@lru_cache(maxsize=4096)
def reduce_address(text: str, storage: AddressStorage) -> str:
    """What may be stored of an address; empty if nothing may, or if it is no address."""
    if storage is AddressStorage.OFF or len(text) > _LONGEST_ADDRESS:
        return ""
    try:
        address: IPv4Address | IPv6Address = ip_address(text.strip().partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if storage is AddressStorage.FULL:
        return str(address)
    network = ip_network((address, _KEPT_BITS[address.version]), strict=False)
    return str(network.network_address)


def reduce_addresses(payload: bytes, storage: AddressStorage) -> bytes:
    """The event with each address in a field named `ip` reduced, and nothing else changed.

    Works on what isn't valid JSON too. A text that isn't an address stays, unless
    one may stand in it; then it becomes empty.
    """
    if storage is AddressStorage.FULL or b'"ip"' not in payload:
        return payload

    def reduced(field: re.Match[bytes]) -> bytes:
        text = field[2].decode(errors="replace")
        kept = reduce_address(text, storage)
        if not kept and not _MAY_HOLD_ADDRESS.search(text):
            return field[0]
        return b'%b%b"' % (field[1], kept.encode())

    return _FIELD.sub(reduced, payload)
