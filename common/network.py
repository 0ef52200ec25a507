"""The network that an address is in: enough to see where a request came from, too little to
know a person by.
"""

from __future__ import annotations

import ipaddress

_BITS_KEPT = {4: 24, 6: 48}


def network_of(address: str) -> str:
    """The address with its last bits cut off, such as `203.0.113.0/24` or `2001:db8::/48`.

    Empty if the text is no IP address.
    """
    try:
        read = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(read, ipaddress.IPv6Address):
        read = read.ipv4_mapped or ipaddress.IPv6Address(int(read))  # Without its zone.
    return str(ipaddress.ip_network((read, _BITS_KEPT[read.version]), strict=False))
