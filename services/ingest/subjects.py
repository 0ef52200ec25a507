"""Who an event is about: the ids in it, and the keyed hashes that stand for them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from services.ingest.verdicts import EventType

_DIGEST_BYTES = 16
_TEXT_LENGTH = 255


@dataclass(frozen=True, slots=True)
class Subject:
    """A person, by ids."""

    user_ids: frozenset[str] = frozenset()
    anonymous_ids: frozenset[str] = frozenset()
    emails: frozenset[str] = frozenset()
    """In lower case."""

    def owns(self, *, user_id: str, anonymous_id: str, previous_id: str = "") -> bool:
        """Whether an event with these ids is about the person.

        On a device that several people use, what somebody else did while known by name is
        theirs.
        """
        if user_id in self.user_ids or (not user_id and anonymous_id in self.anonymous_ids):
            return True
        return previous_id in self.user_ids or previous_id in self.anonymous_ids

    def joined(self, other: Subject) -> Subject:
        """Both, as one person."""
        return Subject(
            self.user_ids | other.user_ids,
            self.anonymous_ids | other.anonymous_ids,
            self.emails | other.emails,
        )


@dataclass(frozen=True, slots=True)
class Mentions:
    """What an event's payload says of its person and of an order. What it doesn't is empty."""

    previous_id: str = ""
    emails: tuple[str, ...] = ()
    """In lower case."""
    order_id: str = ""


class _Traits(msgspec.Struct):
    email: Any = None


class _Context(msgspec.Struct):
    traits: Any = None


class _Properties(msgspec.Struct):
    order_id: Any = None


class _Fields(msgspec.Struct, rename="camel"):
    previous_id: Any = None
    traits: msgspec.Raw = msgspec.Raw()
    context: msgspec.Raw = msgspec.Raw()
    properties: msgspec.Raw = msgspec.Raw()


_fields = msgspec.json.Decoder(_Fields)
_NOTHING = Mentions()


def read_mentions(kind: int, payload: bytes) -> Mentions:
    """What the payload says."""
    if kind != EventType.ALIAS and b'"email"' not in payload and b'"order_id"' not in payload:
        return _NOTHING
    try:
        fields = _fields.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _NOTHING
    context = _read(fields.context, _Context)
    found = (
        _read(fields.traits, _Traits).email,
        context.traits.get("email") if isinstance(context.traits, dict) else None,
    )
    emails = {text.lower() for email in found if (text := _as_text(email))}
    return Mentions(
        previous_id=_as_text(fields.previous_id) if kind == EventType.ALIAS else "",
        emails=tuple(sorted(emails)),
        order_id=_as_text(_read(fields.properties, _Properties).order_id),
    )


class SubjectDigests:
    """Keyed hashes of ids, each kind and store by itself: without the key, nobody can try ids."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of_user(self, store: bytes, user_id: str) -> bytes:
        """Stands for a user."""
        return self._of(b"user", store, user_id)

    def of_browser(self, store: bytes, anonymous_id: str) -> bytes:
        """Stands for a browser or app."""
        return self._of(b"anonymous", store, anonymous_id)

    def of_email(self, store: bytes, email: str) -> bytes:
        """Stands for an e-mail address."""
        return self._of(b"email", store, email.lower())

    def of_order(self, store: bytes, order_id: str) -> bytes:
        """Stands for an order."""
        return self._of(b"order", store, order_id)

    def of_subject(self, store: bytes, subject: Subject) -> Iterator[bytes]:
        """Those of all ids of a person."""
        yield from (self.of_user(store, one) for one in sorted(subject.user_ids))
        yield from (self.of_browser(store, one) for one in sorted(subject.anonymous_ids))
        yield from (self.of_email(store, one) for one in sorted(subject.emails))

    def of_event(
        self, store: bytes, kind: int, *, user_id: str, anonymous_id: str, payload: bytes
    ) -> set[bytes]:
        """Those by which an event can be found."""
        mentions = read_mentions(kind, payload)
        found = {self.of_email(store, email) for email in mentions.emails}
        if user_id:
            found.add(self.of_user(store, user_id))
        if anonymous_id and (not user_id or kind == EventType.IDENTIFY):
            found.add(self.of_browser(store, anonymous_id))
        if mentions.previous_id:
            found.add(self.of_user(store, mentions.previous_id))
            found.add(self.of_browser(store, mentions.previous_id))
        if mentions.order_id:
            found.add(self.of_order(store, mentions.order_id))
        return found

    def is_among(
        self,
        digests: Collection[bytes],
        store: bytes,
        kind: int,
        *,
        user_id: str,
        anonymous_id: str,
        payload: bytes,
    ) -> bool:
        """Whether an event is about one of the people that these stand for."""
        if user_id:
            if self.of_user(store, user_id) in digests:
                return True
        elif anonymous_id and self.of_browser(store, anonymous_id) in digests:
            return True
        if kind not in (EventType.IDENTIFY, EventType.ALIAS):
            return False
        mentions = read_mentions(kind, payload)
        return any(self.of_email(store, email) in digests for email in mentions.emails) or (
            mentions.previous_id != ""
            and (
                self.of_user(store, mentions.previous_id) in digests
                or self.of_browser(store, mentions.previous_id) in digests
            )
        )

    def _of(self, kind: bytes, store: bytes, text: str) -> bytes:
        return hashlib.blake2b(
            store + text.encode(), digest_size=_DIGEST_BYTES, key=self._key, person=kind
        ).digest()


def _read(raw: msgspec.Raw, kind: type[Any]) -> Any:
    if not bytes(raw):
        return kind()
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return kind()


def _as_text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value).strip()[:_TEXT_LENGTH]
