"""Signs receipts, so that anybody can tell that they are ours and unaltered."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from dataclasses import dataclass

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True)
class SignedReceipt:
    """A receipt's content, and the signature of exactly these bytes."""

    content: bytes
    signature: bytes


class ReceiptSigner:
    """Signs with the Ed25519 key that has this seed. Older public keys are told of too."""

    def __init__(self, seed: bytes, *, older_public_keys: tuple[bytes, ...] = ()) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        own = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self._public_keys = (own, *older_public_keys)
        self.key_id = _thumbprint(own)

    def sign(self, content: dict[str, object]) -> SignedReceipt:
        """The content as JSON, signed."""
        encoded = msgspec.json.encode(content)
        return SignedReceipt(encoded, self._key.sign(encoded))

    def key_set(self) -> str:
        """The public keys as a JSON Web Key Set (RFC 8037)."""
        keys = [
            {**_jwk(key), "kid": _thumbprint(key), "alg": "EdDSA", "use": "sig"}
            for key in self._public_keys
        ]
        return msgspec.json.encode({"keys": keys}).decode()


def as_base64url(raw: bytes) -> str:
    """The bytes in base64url without padding, as JSON Web Keys have them."""
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _jwk(key: bytes) -> dict[str, str]:
    return {"crv": "Ed25519", "kty": "OKP", "x": as_base64url(key)}


def _thumbprint(key: bytes) -> str:
    """RFC 7638: the hash of the required members, in their order."""
    return as_base64url(hashlib.sha256(msgspec.json.encode(_jwk(key))).digest())
