"""A person's ids, as a case keeps them: sealed for as long as they are needed, hashed for ever."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.digest import digest_of
from shoptrail.privacy.v1.subject_pb2 import Subject

_NONCE_BYTES = 12
_HASH_BYTES = 16


@dataclass(frozen=True, slots=True)
class GivenId:
    """The one id that a case was opened with."""

    kind: str
    """`user_id`, `anonymous_id` or `email`."""
    text: str

    def subject(self) -> Subject:
        """The person, as far as this tells."""
        return Subject(**{f"{self.kind}s": [self.text]})


class SubjectSeal:
    """Seals and hashes ids under a key of Maintenance's own."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(_derived(key, b"seal"))
        self._hash_key = _derived(key, b"hash")

    def seal(self, case_uid: str, subject: Subject) -> bytes:
        """The ids, sealed for this case."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(
            nonce, subject.SerializeToString(deterministic=True), case_uid.encode()
        )

    def open(self, case_uid: str, sealed: bytes) -> Subject:
        """The ids that were sealed for this case."""
        opened = self._cipher.decrypt(
            sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], case_uid.encode()
        )
        return Subject.FromString(opened)

    def hash_of(self, store_uid: str, given: GivenId) -> bytes:
        """Stands for the id, in its store: nobody without the key can try ids."""
        text = given.text.lower() if given.kind == "email" else given.text
        return hashlib.blake2b(
            f"{store_uid}\0{given.kind}\0{text}".encode(),
            digest_size=_HASH_BYTES,
            key=self._hash_key,
        ).digest()


class SubjectKeyNames:
    """Under what the keys are kept that seal people's rows in backups."""

    def __init__(self, key: bytes) -> None:
        self._hash_key = _derived(key, b"subject keys")

    def of_user(self, store_uid: str, user_id: str) -> bytes:
        """Of a user."""
        return self.of_digest(store_uid, digest_of("user", user_id))

    def of_browser(self, store_uid: str, anonymous_id: str) -> bytes:
        """Of a browser or app."""
        return self.of_digest(store_uid, digest_of("anonymous", anonymous_id))

    def of_digest(self, store_uid: str, digest: bytes) -> bytes:
        """Of whom a digest stands for, as read models have them."""
        return hashlib.blake2b(
            store_uid.encode() + digest, digest_size=_HASH_BYTES, key=self._hash_key
        ).digest()

    def of_subject(self, store_uid: str, subject: Subject) -> set[bytes]:
        """Of all ids of a person."""
        return {
            *(self.of_user(store_uid, one) for one in subject.user_ids),
            *(self.of_browser(store_uid, one) for one in subject.anonymous_ids),
        }


def _derived(key: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), length=32, salt=None, info=purpose).derive(key)
