"""Where a browser's request comes from, and whether a key may be used there."""

from __future__ import annotations

import re
from collections.abc import Sequence

_DEFAULT_PORTS = {"http": "80", "https": "443"}
_ORIGIN = re.compile(r"(https?)://([a-z0-9._-]{1,253}?)\.?(?::([0-9]{1,5}))?(?:/.*)?", re.DOTALL)


def host_of(origin: bytes) -> str:
    """The host in an `Origin` or a `Referer`, with its port; the scheme's own if it names none.

    Empty if there is none: for `null`, for pages that are no web pages, for anything else.
    """
    found = _ORIGIN.fullmatch(origin.decode("latin-1").lower())
    if found is None:
        return ""
    scheme, host, port = found.groups()
    return f"{host}:{port or _DEFAULT_PORTS[scheme]}"


def is_allowed(host: str, allowed: Sequence[str]) -> bool:
    """Whether a host, as `host_of` has it, is one of those allowed.

    Names are compared label by label: `*.shop.example` allows `www.shop.example`, and
    neither `shop.example`, `myshop.example` nor `www.shop.example.evil.test`. A port is
    compared only where the allowed host names one.
    """
    name, _, port = host.partition(":")
    labels = name.split(".")
    for each in allowed:
        allowed_name, _, allowed_port = each.partition(":")
        if allowed_port and allowed_port != port:
            continue
        suffix = allowed_name.removeprefix("*.").split(".")
        if allowed_name.startswith("*."):
            if len(labels) > len(suffix) and labels[-len(suffix) :] == suffix:
                return True
        elif labels == suffix:
            return True
    return False
