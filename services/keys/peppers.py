"""Keyed hashes of keys' texts: without a pepper, a copy of the database verifies no key."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Pepper:
    """A secret that lives in the configuration and never in the database."""

    version: int
    secret: bytes = field(repr=False)

    def hash(self, text: str) -> bytes:
        """HMAC-SHA-256 of a key's text: 32 bytes."""
        return hmac.digest(self.secret, text.encode(), "sha256")

    def seed(self, uid: str) -> bytes:
        """64 bytes that follow from a key's uid, for whoever has the pepper only."""
        return hmac.digest(self.secret, b"key text of " + uid.encode(), "sha512")


def read_peppers(text: str) -> tuple[Pepper, ...]:
    """The peppers in `version:hex,version:hex`, the current one first.

    Raises `ValueError` if there is none, a version occurs twice or is not a
    positive number, or a secret has not 64 hex digits. Its text shows no secret.
    """
    peppers = tuple(_read_pepper(part) for part in text.split(","))
    if len({pepper.version for pepper in peppers}) < len(peppers):
        raise ValueError("a version occurs twice")
    return peppers


def _read_pepper(part: str) -> Pepper:
    version, _, digits = part.strip().partition(":")
    try:
        pepper = Pepper(version=int(version), secret=bytes.fromhex(digits))
    except ValueError:
        pepper = None
    if pepper is None or pepper.version < 1 or len(pepper.secret) != _SECRET_BYTES:
        raise ValueError("each must be a version, a colon and 64 hex digits, as in 1:ab…")
    return pepper
