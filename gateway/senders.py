"""Says who sent a request: from which address, with what, and with which wish for privacy."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

from gateway.exchange import Request

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAX_AGENT_LENGTH = 1024


class Senders:
    """Knows which proxies may say for whom they pass a request on."""

    def __init__(self, trusted_proxies: Sequence[Network]) -> None:
        self._trusted_proxies = tuple(trusted_proxies)
        self._is_trusted = lru_cache(maxsize=4096)(self._is_in_trusted_network)

    def find_ip(self, request: Request) -> str:
        """The sender's IP address; empty if it can't be told.

        The peer's own, unless that is a trusted proxy: then the last address in
        `X-Forwarded-For` that is none. What stands before it anyone may have written.
        """
        address = request.peer
        if not self._trusted_proxies or not self._is_trusted(address):
            return address
        forwarded = b",".join(
            value for name, value in request.header_lines if name == b"x-forwarded-for"
        )
        for entry in reversed(forwarded.decode("latin-1").split(",")):
            if not entry.strip():
                continue
            address = _without_port(entry.strip())
            if not self._is_trusted(address):
                return _as_address(address)
        return address

    def is_secure(self, request: Request) -> bool:
        """Whether a trusted proxy says that it was asked over HTTPS."""
        return (
            self._is_trusted(request.peer)
            and request.headers.get(b"x-forwarded-proto", b"").strip().lower() == b"https"
        )

    def _is_in_trusted_network(self, text: str) -> bool:
        try:
            address = _parse(text)
        except ValueError:
            return False
        return any(address in network for network in self._trusted_proxies)


def find_user_agent(request: Request) -> str:
    """What the sender says it is, at most 1024 characters of it; empty if it doesn't."""
    return request.headers.get(b"user-agent", b"")[:_MAX_AGENT_LENGTH].decode("latin-1")


def wants_privacy(request: Request) -> bool:
    """Whether Global Privacy Control is on: one `Sec-GPC` is exactly `1`, others don't matter.

    https://www.w3.org/TR/gpc/
    """
    return b"sec-gpc" in request.headers and (b"sec-gpc", b"1") in request.header_lines


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def _as_address(text: str) -> str:
    try:
        return str(_parse(text))
    except ValueError:
        return ""


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
