"""Who is the same person: anonymous ids and the users that they belong to.

An anonymous id belongs to the user with whom it was identified first, with all that it
did before and after. So a device that two people share joins neither with the other, and
what each of them did while known by name stays theirs. User ids become one person by
`alias` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from common.digest import digest_of

_REMEMBERED = 65_536


@dataclass(frozen=True, slots=True, order=True)
class Ownership:
    """A user's claim to an anonymous id. The least one holds."""

    time: datetime
    user: bytes


# Whoever does something does more soon.
@lru_cache(_REMEMBERED)
def user_subject(user_id: str) -> bytes:
    """What stands for a user in the read models."""
    return digest_of("user", user_id)


@lru_cache(_REMEMBERED)
def anonymous_subject(anonymous_id: str) -> bytes:
    """What stands for a browser or app in the read models."""
    return digest_of("anonymous", anonymous_id)


def join(
    pairs: Iterable[tuple[bytes, bytes]], representatives: Mapping[bytes, bytes]
) -> dict[bytes, bytes]:
    """Which representatives are replaced by which when the users of each pair become one.

    `representatives` names those of all users of the pairs that have another than
    themselves. The least represents all, so the sequence of the pairs doesn't matter.
    """
    replaced: dict[bytes, bytes] = {}

    def representative_of(user: bytes) -> bytes:
        found = representatives.get(user, user)
        while found in replaced:
            found = replaced[found]
        return found

    for one, other in pairs:
        least, greatest = sorted((representative_of(one), representative_of(other)))
        if least != greatest:
            replaced[greatest] = least
    return {old: representative_of(old) for old in replaced}
