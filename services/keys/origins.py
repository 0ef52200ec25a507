"""The hosts whose pages may use a key."""

from __future__ import annotations

import re
from collections.abc import Sequence

MOST_HOSTS = 20

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*(?::[1-9][0-9]{{0,4}})?")
_LONGEST_HOST = 253


def read_hosts(hosts: Sequence[str]) -> tuple[str, ...] | None:
    """The hosts in lower case, each once; None if one is no host or there are too many.

    A host is a name, with `*.` before it for all names that end in it, and a port after it
    where only that port is meant. Names with other letters than ASCII are written as
    browsers send them, in Punycode. A bare `*`, or `*.` before a top-level domain, would
    let everyone in and is refused.
    """
    if len(hosts) > MOST_HOSTS:
        return None
    read = tuple(dict.fromkeys(host.lower() for host in hosts))
    return read if all(map(_is_host, read)) else None


def _is_host(host: str) -> bool:
    if len(host) > _LONGEST_HOST or _HOST.fullmatch(host) is None:
        return False
    return not (host.startswith("*.") and "." not in host.removeprefix("*."))
