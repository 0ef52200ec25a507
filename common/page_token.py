"""Page tokens: where a list goes on, sealed, and good for the same call only (AIP-158)."""

from __future__ import annotations

import hashlib
import json
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import Message

from common.errors import InvalidRequest, PageTokenNotValid

_NONCE_BYTES = 12


class PageTokens:
    """Seals and opens page tokens with AES-256-GCM, so that they show no private key of a row."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, request: Message, place: list[Any]) -> str:
        """A token by which the next call of this kind goes on at `place`, a JSON list."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, json.dumps(place).encode(), _binding(request))
        return _as_text(nonce + sealed)

    def open(self, request: Message) -> list[Any] | None:
        """Where the request's page token goes on; None if it has none.

        Raises `PageTokenNotValid` if the token was altered, or made for a request
        that differs in anything but token and page size.
        """
        token: str = request.page_token  # type: ignore[attr-defined]  # every list request has it
        if not token:
            return None
        try:
            raw = _as_bytes(token)
            opened = self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _binding(request))
        except (ValueError, InvalidTag):
            raise PageTokenNotValid from None
        place: list[Any] = json.loads(opened)
        return place


def read_page_size(asked: int, *, default: int, largest: int) -> int:
    """The page size to use; raises `InvalidRequest` if a negative one was asked for."""
    if asked < 0:
        raise InvalidRequest({"page_size": "must not be negative"})
    return min(asked or default, largest)


def _as_text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _as_bytes(text: str) -> bytes:
    raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _as_text(raw) != text:  # Python's decoder overlooks foreign letters and odd last bits.
        raise ValueError("not the text of any bytes")
    return raw


def _binding(request: Message) -> bytes:
    bound = type(request)()
    bound.CopyFrom(request)
    bound.ClearField("page_token")
    bound.ClearField("page_size")
    name = request.DESCRIPTOR.full_name.encode()
    return hashlib.sha256(name + b"\0" + bound.SerializeToString(deterministic=True)).digest()
