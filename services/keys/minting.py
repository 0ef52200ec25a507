"""Makes keys: their texts, and what is kept of these."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from common.uid import new_uid
from services.keys import repository
from services.keys.key_text import Kind, derived_key_text, hint_of, is_test, new_key_text
from services.keys.peppers import Pepper
from services.keys.repository import ApiKey, NewKey
from services.keys.trail import Action, Deed

# A chain of successors that is longer than this is not followed to its end.
_MOST_SUCCESSORS = 20


class Mint:
    """Makes keys under the current pepper, the first.

    The texts of secret keys are random, and told once. Those of publishable keys, which
    stand in pages for all to see, follow from their uids under the pepper: so pages can be
    told a key's successor, though no text is kept.
    """

    def __init__(self, peppers: Sequence[Pepper]) -> None:
        self._peppers = peppers

    def hashes_of(self, text: str) -> list[bytes]:
        """What a key with this text may be found by."""
        return [pepper.hash(text) for pepper in self._peppers]

    def new_key(
        self,
        kind: Kind,
        *,
        test: bool,
        display_name: str,
        scopes: Sequence[str],
        expire_time: datetime | None = None,
        allowed_origins: Sequence[str] = (),
        rotate_seconds: int | None = None,
    ) -> tuple[NewKey, str]:
        """A key that is to be kept, and its text, which is not."""
        uid, pepper = new_uid("key"), self._peppers[0]
        text = (
            derived_key_text(kind, test=test, seed=pepper.seed(uid))
            if kind is Kind.PUBLISHABLE
            else new_key_text(kind, test=test)
        )
        new = NewKey(
            uid=uid,
            kind=kind,
            display_name=display_name,
            hint=hint_of(text),
            pepper_version=pepper.version,
            hash=pepper.hash(text),
            scopes=scopes,
            expire_time=expire_time,
            allowed_origins=allowed_origins,
            rotate_seconds=rotate_seconds,
        )
        return new, text

    async def rotate(
        self,
        transaction: AsyncConnection,
        key: ApiKey,
        *,
        overlap: timedelta,
        expire_time: datetime | None,
        now: datetime,
    ) -> tuple[ApiKey, ApiKey, str, list[Deed]]:
        """Make the key's successor; the key itself ends after the overlap.

        Returns the successor, the key, the successor's text and what is to be recorded.
        """
        new, text = self.new_key(
            key.kind,
            test=is_test(key.hint),
            display_name=key.display_name,
            scopes=key.scopes,
            expire_time=expire_time,
            allowed_origins=key.allowed_origins,
            rotate_seconds=key.rotate_seconds,
        )
        successor = await repository.add_key(transaction, new, store_id=key.store_id, now=now)
        end = min(now + overlap, key.expire_time or datetime.max.replace(tzinfo=now.tzinfo))
        changes = {"successor_uid": new.uid, "expire_time": end, "rotate_time": None}
        if end <= now:
            changes["revoke_time"] = end
        old = await repository.change_key(transaction, key, changes)
        store_uid = key.store_uid or None
        deeds = [
            Deed(Action.ROTATE_KEY, store_uid=store_uid, key_uid=key.uid, detail=new.uid),
            Deed(Action.CREATE_KEY, store_uid=store_uid, key_uid=new.uid),
        ]
        return successor, old, text, deeds

    async def find_successor_text(
        self, snapshot: AsyncConnection, key: ApiKey, *, now: datetime
    ) -> str:
        """The text of the publishable key's last successor that works; empty if there is none."""
        latest = ""
        for _ in range(_MOST_SUCCESSORS):
            if key.kind is not Kind.PUBLISHABLE or key.successor_uid is None:
                break
            successor = await repository.find_key(snapshot, key.successor_uid)
            if successor is None:
                break
            if successor.is_working(now):
                latest = self._text_of(successor) or latest
            key = successor
        return latest

    def _text_of(self, key: ApiKey) -> str:
        for pepper in self._peppers:
            if pepper.version == key.pepper_version:
                return derived_key_text(key.kind, test=is_test(key.hint), seed=pepper.seed(key.uid))
        return ""
