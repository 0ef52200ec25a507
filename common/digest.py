"""Short bytes that stand for texts of any length."""

from __future__ import annotations

from hashlib import blake2b

_DIGEST_BYTES = 16


def digest_of(*texts: str) -> bytes:
    """16 bytes that stand for the texts, in this order."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    whole = b"".join([len(one).to_bytes(4, "big") + one for one in encoded])
    return blake2b(whole, digest_size=_DIGEST_BYTES).digest()


def digest_of_one(text: str) -> bytes:
    """What `digest_of` gives of this text alone."""
    encoded = text.encode("utf-8", "surrogatepass")
    return blake2b(len(encoded).to_bytes(4, "big") + encoded, digest_size=_DIGEST_BYTES).digest()
