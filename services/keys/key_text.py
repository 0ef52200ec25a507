"""The text of a key: `sk_live_`, 32 random letters, and 6 that check all before them."""

from __future__ import annotations

import re
import secrets
import string
import zlib
from enum import StrEnum

_LETTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_LENGTH = 32  # 190 bits
_CHECKSUM_LENGTH = 6  # 62 ** 6 is more than 2 ** 32
_FORM = re.compile(rf"[psc]k_(?:live|test)_[0-9A-Za-z]{{{_RANDOM_LENGTH + _CHECKSUM_LENGTH}}}")
_HINT_LENGTH = 4


class Kind(StrEnum):
    """What a key is for, by the first letters of its text."""

    PUBLISHABLE = "pk"
    SECRET = "sk"  # noqa: S105 - letters that everyone knows
    CRON = "ck"


def new_key_text(kind: Kind, *, test: bool) -> str:
    """The text of a new key, with 190 random bits."""
    letters = "".join(secrets.choice(_LETTERS) for _ in range(_RANDOM_LENGTH))
    body = f"{kind}_{'test' if test else 'live'}_{letters}"
    return body + _checksum(body)


def derived_key_text(kind: Kind, *, test: bool, seed: bytes) -> str:
    """The text that follows from 64 bytes which nobody can guess, always the same."""
    rest = int.from_bytes(seed)
    letters = ""
    for _ in range(_RANDOM_LENGTH):
        rest, digit = divmod(rest, len(_LETTERS))
        letters += _LETTERS[digit]
    body = f"{kind}_{'test' if test else 'live'}_{letters}"
    return body + _checksum(body)


def is_test(text: str) -> bool:
    """Whether a key is for trying things out, by its text or its hint."""
    return text[2:].startswith("_test_")


def is_key_text(text: str) -> bool:
    """Whether the text can be a key's: any one letter mistyped is noticed."""
    if _FORM.fullmatch(text) is None:
        return False
    return text[-_CHECKSUM_LENGTH:] == _checksum(text[:-_CHECKSUM_LENGTH])


def hint_of(text: str) -> str:
    """The part of a key's text by which people know it again, such as `sk_live_Ab3d…9xYz`.

    It may be shown: of 190 random bits it tells 24 by its first letters, and by
    its last, which belong to the checksum, at most 24 more. 142 are left to guess.
    """
    shown = len("sk_live_") + _HINT_LENGTH
    return f"{text[:shown]}…{text[-_HINT_LENGTH:]}"


def _checksum(body: str) -> str:
    rest = zlib.crc32(body.encode())
    letters = ""
    for _ in range(_CHECKSUM_LENGTH):
        rest, digit = divmod(rest, len(_LETTERS))
        letters = _LETTERS[digit] + letters
    return letters
