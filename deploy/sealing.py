"""Seals rows that tell of a person under the person's own key, and opens those that have one."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Table, select

from common.db import Database
from common.uid import new_uid
from services.ingest.intake import key_of
from services.ingest.remnants import Pseudonyms, orders_in, remnant_of, with_other_order
from services.maintenance.repository import add_subject_keys, find_subject_keys
from services.maintenance.subject import SubjectKeyNames
from services.maintenance.tables import subject_keys
from services.query.amendments import without_people
from services.query.orders import Order

SEALED = {
    "query.visits": "subject",
    "query.owners": "user",
    "query.representatives": "subject",
    "query.sessions": "subject",
    "ingest.events": "",
    "ingest.rejected_events": "",
}
"""The tables whose rows are sealed; of read models the column that says who a row is about."""

_KEY_BYTES = 32
_NONCE_BYTES = 12

Row = Mapping[str, Any]


class Keyring:
    """The keys of all people, in Maintenance's database."""

    def __init__(self, database: Database, names: SubjectKeyNames) -> None:
        self._database = database
        self.names = names

    async def find(self, wanted: Iterable[_Owner]) -> dict[_Owner, bytes]:
        """The keys of those who have one."""
        found: dict[_Owner, bytes] = {}
        async with self._database.read() as snapshot:
            for store_uid, digests in _by_store(wanted).items():
                keys = await find_subject_keys(snapshot, store_uid, digests)
                found |= {_Owner(store_uid, digest): key for digest, key in keys.items()}
        return found

    async def obtain(self, wanted: Iterable[_Owner]) -> dict[_Owner, bytes]:
        """The keys of all of these; who had none has one now."""
        owners = set(wanted)
        found = await self.find(owners)
        new = {owner: os.urandom(_KEY_BYTES) for owner in owners - found.keys()}
        if new:
            async with self._database.begin() as transaction:
                for store_uid, digests in _by_store(new).items():
                    keys = {digest: new[_Owner(store_uid, digest)] for digest in digests}
                    await add_subject_keys(transaction, store_uid, keys)
        return found | new

    async def list_all(self) -> list[tuple[str, bytes, bytes]]:
        """Store, digest and key of all."""
        async with self._database.read() as snapshot:
            return [tuple(row) for row in await snapshot.execute(select(subject_keys))]

    async def replace_all(self, rows: Iterable[Sequence[Any]]) -> None:
        """Have these keys and no others."""
        by_store: defaultdict[str, dict[bytes, bytes]] = defaultdict(dict)
        for store_uid, digest, key in rows:
            by_store[store_uid][digest] = key
        async with self._database.begin() as transaction:
            await transaction.execute(subject_keys.delete())
            for store_uid, keys in by_store.items():
                await add_subject_keys(transaction, store_uid, keys)


@dataclass(frozen=True, slots=True)
class _Owner:
    """Whose key it is."""

    store_uid: str
    digest: bytes


class RowSealer:
    """Makes of rows what goes into a backup. Of a sealed one that is what may be read, if anything
    may, and the rest sealed.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        # Gone with this object: what an order is called in the clear leads nowhere.
        self._order_key = os.urandom(_KEY_BYTES)

    async def seal(
        self, name: str, table: Table, rows: Iterable[Sequence[Any]]
    ) -> list[Sequence[Any]]:
        """The rows of a table, by its name with its service."""
        columns = [column.name for column in table.columns]
        known = [dict(zip(columns, row, strict=True)) for row in rows]
        if name not in SEALED:
            return [list(_in_the_clear(name, row).values()) for row in known]
        owners = [_owner_of(name, row, self._keyring.names) for row in known]
        keys = await self._keyring.obtain(owner for owner in owners if owner)
        entries: list[Sequence[Any]] = []
        for row, owner in zip(known, owners, strict=True):
            values = list(row.values())
            if owner is not None:
                nonce = os.urandom(_NONCE_BYTES)
                content = AESGCM(keys[owner]).encrypt(
                    nonce, msgspec.msgpack.encode(values), _context(name, owner)
                )
                entries.append(
                    [self._left_of(name, row), owner.store_uid, owner.digest, nonce + content]
                )
            elif name != "ingest.rejected_events":  # Whom that tells of can't be told.
                entries.append([values])
        return entries

    def _left_of(self, name: str, row: Row) -> list[Any] | None:
        """What may be read without the key; None if nothing."""
        if name != "ingest.events":
            return None
        remnant = remnant_of(
            row["type"],
            name=row["name"],
            occur_time=row["occur_time"],
            receive_time=row["receive_time"],
            payload=row["payload"],
            enrichment=row["enrichment"] or b"",
            pseudonyms=Pseudonyms(self._order_key),
        )
        # Drawn when it is restored: here it would tell of the time.
        left = dict(row) | {"uid": None, "message_key": None, "message_id": None}
        left |= {"user_id": "", "anonymous_id": "", "name": remnant.name}
        left |= {"occur_time": remnant.occur_time, "receive_time": remnant.receive_time}
        left |= {"payload": remnant.payload, "enrichment": remnant.enrichment}
        return list(left.values())


class RowOpener:
    """Makes rows of what is in a backup. All of it is looked at before any is opened."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._renamed: set[str] = set()
        self.readable_count = 0
        self.unreadable_count = 0

    async def look(self, name: str, table: Table, entries: Sequence[Sequence[Any]]) -> None:
        """Count what can be read, and note which orders get another id for what can't."""
        payload = list(table.columns.keys()).index("payload") if name == "ingest.events" else 0
        keys = await self._keyring.find(_owners_in(entries))
        for entry in entries:
            if len(entry) == 1:
                continue
            if _Owner(entry[1], entry[2]) in keys:
                self.readable_count += 1
                continue
            self.unreadable_count += 1
            if entry[0] is not None:
                self._renamed.update(orders_in(entry[0][payload]).values())

    async def open(
        self, name: str, table: Table, entries: Sequence[Sequence[Any]]
    ) -> list[dict[str, Any]]:
        """The rows that the table is to have."""
        columns = [column.name for column in table.columns]
        if name not in SEALED:
            return [dict(zip(columns, entry, strict=True)) for entry in entries]
        keys = await self._keyring.find(_owners_in(entries))
        rows = []
        for entry in entries:
            left = dict(zip(columns, entry[0], strict=True)) if entry[0] is not None else None
            if len(entry) == 1:
                row = left
            elif key := keys.get(owner := _Owner(entry[1], entry[2])):
                content = AESGCM(key).decrypt(
                    entry[3][:_NONCE_BYTES], entry[3][_NONCE_BYTES:], _context(name, owner)
                )
                row = dict(zip(columns, msgspec.msgpack.decode(content), strict=True))
                if left is not None:
                    row["payload"] = self._with_orders_of(row["payload"], left["payload"])
            else:
                row = left
                if row is not None:
                    uid = new_uid("evt")
                    row |= {"uid": uid, "message_key": key_of(uid), "message_id": uid}
            if row is not None:
                rows.append(row)
        return rows

    def _with_orders_of(self, payload: bytes, left: bytes) -> bytes:
        """Somebody's event, which names an order as what is left of others' does."""
        named, others = orders_in(payload), orders_in(left)
        if self._renamed.isdisjoint(others.values()):
            return payload
        pseudonyms = Pseudonyms()
        for kind, text in named.items():
            other = others.get(kind, text)
            pseudonyms.put(kind, text, other if other in self._renamed else text)
        return with_other_order(payload, pseudonyms)


def _in_the_clear(name: str, row: Row) -> Row:
    """A row that isn't sealed, without what in it tells of somebody."""
    if name == "query.orders":
        order = without_people(msgspec.msgpack.decode(row["told"], type=Order))
        return {**row, "told": msgspec.msgpack.encode(order)}
    if name == "maintenance.privacy_cases" and row["end_time"] is not None:
        return {**row, "sealed_subject": None}
    return row


def _owner_of(name: str, row: Row, names: SubjectKeyNames) -> _Owner | None:
    """Whom the row is about; None if it doesn't say."""
    store_uid = row["store_uid"]
    if column := SEALED[name]:
        return _Owner(store_uid, names.of_digest(store_uid, row[column]))
    if row["user_id"]:
        return _Owner(store_uid, names.of_user(store_uid, row["user_id"]))
    if row["anonymous_id"]:
        return _Owner(store_uid, names.of_browser(store_uid, row["anonymous_id"]))
    return None


def _owners_in(entries: Iterable[Sequence[Any]]) -> set[_Owner]:
    return {_Owner(entry[1], entry[2]) for entry in entries if len(entry) > 1}


def _by_store(owners: Iterable[_Owner]) -> dict[str, list[bytes]]:
    found: defaultdict[str, list[bytes]] = defaultdict(list)
    for owner in owners:
        found[owner.store_uid].append(owner.digest)
    return dict(sorted(found.items()))


def _context(name: str, owner: _Owner) -> bytes:
    """What a row is sealed for."""
    return f"{name} {owner.store_uid} ".encode() + owner.digest
