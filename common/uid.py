"""Public ids: a typed prefix and a UUIDv7, such as `sto_01h455vb4pex5vsknk084sn02q`.

The text form is TypeID's (https://github.com/jetify-com/typeid/tree/main/spec):
128 bits in 26 letters of Crockford's base 32, most significant first.
"""

from functools import lru_cache

import uuid_utils

_CROCKFORD = b"0123456789abcdefghjkmnpqrstvwxyz"
_LETTERS = _CROCKFORD.decode()
# Two letters for ten bits: thirteen looks make a uid, in a third of the time of `b32encode`.
_PAIRS = [first + second for first in _LETTERS for second in _LETTERS]
_SHIFTS = range(120, -1, -10)
_TO_DIGITS = bytes.maketrans(_CROCKFORD, b"0123456789abcdefghijklmnopqrstuv")
_SUFFIX_LENGTH = 26


def new_uid(prefix: str) -> str:
    """A new id that nobody can guess, later in order than those made before it."""
    return format_uid(prefix, new_uuid())


def new_uuid() -> bytes:
    """The 16 bytes of a new UUIDv7 (RFC 9562)."""
    return uuid_utils.uuid7().bytes


def format_uid(prefix: str, uuid: bytes) -> str:
    """The text of an id."""
    number = int.from_bytes(uuid, "big")
    return f"{prefix}_{''.join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])}"


@lru_cache(maxsize=16_384)  # Tables bind the same few stores again and again.
def parse_uid(prefix: str, text: str) -> bytes:
    """The 16 bytes of an id; raises `ValueError` if the text is no id of this kind."""
    return parse_new_uid(prefix, text)


def parse_new_uid(prefix: str, text: str) -> bytes:
    """As `parse_uid`, of an id that won't come again soon and so isn't worth remembering."""
    found, _, letters = text.rpartition("_")
    # What is no letter of ASCII becomes a question mark, which is none of the alphabet's.
    suffix = letters.encode("ascii", "replace")
    if found != prefix or len(suffix) != _SUFFIX_LENGTH or suffix.translate(None, _CROCKFORD):
        raise ValueError(f"not an id of the kind {prefix}_")
    if letters[0] > "7":
        raise ValueError("more than 128 bits")
    # Python's own `b32decode` takes three times as long.
    return int(suffix.translate(_TO_DIGITS), 32).to_bytes(16, "big")


def is_uid(prefix: str, text: str) -> bool:
    """Whether the text is an id of this kind."""
    try:
        parse_uid(prefix, text)
    except ValueError:
        return False
    return True
