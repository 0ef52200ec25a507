"""Serves `shoptrail.keys.v1.Keys`: stores, the keys that open them, and whether a key works."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy.ext.asyncio import AsyncConnection

from common.context import get_call
from common.db import Database
from common.errors import InvalidRequest, NotFound, ScopeMissing
from common.interceptors.wrap import Context
from common.page_token import PageTokens, read_page_size
from services.keys import repository
from services.keys.grants import DEFAULT_SCOPES, grantable_scopes
from services.keys.key_text import Kind, hint_of, is_key_text, new_key_text
from services.keys.peppers import Pepper
from services.keys.repository import ApiKey, Store
from shoptrail.keys.v1 import api_key_pb2, keys_pb2, keys_pb2_grpc, store_pb2

SERVICE = keys_pb2.DESCRIPTOR.services_by_name["Keys"].full_name

_RESTORABLE = timedelta(days=30)
_REMEMBER = Duration(seconds=10)
_LONGEST_NAME = 255
_PAGE_SIZE, _LARGEST_PAGE_SIZE = 50, 500

_KINDS = {
    api_key_pb2.KEY_KIND_PUBLISHABLE: Kind.PUBLISHABLE,
    api_key_pb2.KEY_KIND_SECRET: Kind.SECRET,
    api_key_pb2.KEY_KIND_CRON: Kind.CRON,
}
_KIND_VALUES = {kind: value for value, kind in _KINDS.items()}


class KeysServicer(keys_pb2_grpc.KeysServicer):
    """Checks a request, then hands it to the repository in one transaction.

    `peppers` has the current one first. `now` is asked for each call.
    """

    def __init__(
        self,
        database: Database,
        *,
        peppers: Sequence[Pepper],
        page_tokens: PageTokens,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._peppers = peppers
        self._page_tokens = page_tokens
        self._now = now

    async def CreateStore(
        self, request: keys_pb2.CreateStoreRequest, context: Context
    ) -> keys_pb2.CreateStoreResponse:
        if not 1 <= len(request.display_name) <= _LONGEST_NAME:
            raise InvalidRequest({"display_name": f"must have 1 to {_LONGEST_NAME} characters"})
        async with self._database.begin() as transaction:
            store = await repository.add_store(
                transaction, display_name=request.display_name, now=self._now()
            )
        return keys_pb2.CreateStoreResponse(store=_store_message(store))

    async def GetStore(
        self, request: keys_pb2.GetStoreRequest, context: Context
    ) -> keys_pb2.GetStoreResponse:
        async with self._database.read() as snapshot:
            store = await _find_store(snapshot, request.store_uid)
        return keys_pb2.GetStoreResponse(store=_store_message(store))

    async def ListStores(
        self, request: keys_pb2.ListStoresRequest, context: Context
    ) -> keys_pb2.ListStoresResponse:
        page_size = _read_page_size(request.page_size)
        place = self._page_tokens.open(request)
        key = get_call().key
        async with self._database.read() as snapshot:
            stores = await repository.list_stores(
                snapshot,
                only_uid=key.store_uid if key and key.store_uid else None,
                show_deleted=request.show_deleted,
                before_id=place[0] if place else None,
                limit=page_size + 1,
            )
        response = keys_pb2.ListStoresResponse(
            stores=[_store_message(store) for store in stores[:page_size]]
        )
        if len(stores) > page_size:
            response.next_page_token = self._page_tokens.seal(request, [stores[page_size - 1].id])
        return response

    async def DeleteStore(
        self, request: keys_pb2.DeleteStoreRequest, context: Context
    ) -> keys_pb2.DeleteStoreResponse:
        async with self._database.begin() as transaction:
            store = await _find_store(transaction, request.store_uid, lock=True)
            if store.delete_time is None:
                now = self._now()
                store = await repository.set_deletion(
                    transaction, store, delete_time=now, purge_time=now + _RESTORABLE, now=now
                )
        return keys_pb2.DeleteStoreResponse(store=_store_message(store))

    async def UndeleteStore(
        self, request: keys_pb2.UndeleteStoreRequest, context: Context
    ) -> keys_pb2.UndeleteStoreResponse:
        async with self._database.begin() as transaction:
            store = await _find_store(transaction, request.store_uid, lock=True)
            # Asked after the lock was got: its keys may have been purged while we waited.
            now = self._now()
            if store.purge_time is not None and store.purge_time <= now:
                raise _no_store(request.store_uid)
            if store.delete_time is not None:
                store = await repository.set_deletion(
                    transaction, store, delete_time=None, purge_time=None, now=now
                )
        return keys_pb2.UndeleteStoreResponse(store=_store_message(store))

    async def CreateKey(
        self, request: keys_pb2.CreateKeyRequest, context: Context
    ) -> keys_pb2.CreateKeyResponse:
        now = self._now()
        order = _read_key_order(request, now=now)
        _check_may_give(order.scopes)
        text = new_key_text(order.kind, test=request.test)
        pepper = self._peppers[0]
        async with self._database.begin() as transaction:
            store = None
            if request.store_uid:
                store = await _find_store(transaction, request.store_uid, lock=True)
                if store.delete_time is not None:
                    raise _no_store(request.store_uid)
            key = await repository.add_key(
                transaction,
                store_id=store.id if store else None,
                kind=order.kind,
                display_name=request.display_name,
                hint=hint_of(text),
                pepper_version=pepper.version,
                hash=pepper.hash(text),
                scopes=order.scopes,
                expire_time=order.expire_time,
                now=now,
            )
        return keys_pb2.CreateKeyResponse(key=_key_message(key), text=text)

    async def ListKeys(
        self, request: keys_pb2.ListKeysRequest, context: Context
    ) -> keys_pb2.ListKeysResponse:
        page_size = _read_page_size(request.page_size)
        place = self._page_tokens.open(request)
        async with self._database.read() as snapshot:
            store = await _find_store(snapshot, request.store_uid) if request.store_uid else None
            keys = await repository.list_keys(
                snapshot,
                store_id=store.id if store else None,
                before_id=place[0] if place else None,
                limit=page_size + 1,
            )
        response = keys_pb2.ListKeysResponse(keys=[_key_message(key) for key in keys[:page_size]])
        if len(keys) > page_size:
            response.next_page_token = self._page_tokens.seal(request, [keys[page_size - 1].id])
        return response

    async def RevokeKey(
        self, request: keys_pb2.RevokeKeyRequest, context: Context
    ) -> keys_pb2.RevokeKeyResponse:
        async with self._database.begin() as transaction:
            key = await repository.find_key(transaction, request.key_uid)
            if key is None or key.store_uid != request.store_uid:
                raise NotFound("The store has no such key.", {"uid": _shorten(request.key_uid)})
            if key.revoke_time is None:
                now = self._now()
                key = await repository.end_key(
                    transaction, key, revoke_time=min(now, key.expire_time or now)
                )
        return keys_pb2.RevokeKeyResponse(key=_key_message(key))

    async def VerifyKey(
        self, request: keys_pb2.VerifyKeyRequest, context: Context
    ) -> keys_pb2.VerifyKeyResponse:
        response = keys_pb2.VerifyKeyResponse(remember=_REMEMBER)
        if not is_key_text(request.text):
            return response
        hashes = [pepper.hash(request.text) for pepper in self._peppers]
        async with self._database.read() as snapshot:
            key = await repository.find_working_key(snapshot, hashes, now=self._now())
        if key is not None:
            response.key.CopyFrom(_key_message(key))
        return response


@dataclass(frozen=True, slots=True)
class _KeyOrder:
    kind: Kind
    scopes: Sequence[str]
    expire_time: datetime | None


def _read_key_order(request: keys_pb2.CreateKeyRequest, *, now: datetime) -> _KeyOrder:
    """What key is asked for; raises `InvalidRequest` naming everything wrong at once."""
    violations: dict[str, str] = {}
    if len(request.display_name) > _LONGEST_NAME:
        violations["display_name"] = f"must have at most {_LONGEST_NAME} characters"

    expire_time = None
    if request.HasField("expire_time"):
        try:
            expire_time = request.expire_time.ToDatetime(tzinfo=UTC)
        except ValueError:
            violations["expire_time"] = "is not a time"
        else:
            if expire_time <= now:
                violations["expire_time"] = "must lie in the future"

    kind = _KINDS.get(request.kind)
    if kind is None:
        violations["kind"] = "must be PUBLISHABLE, SECRET or CRON"
        raise InvalidRequest(violations)

    grantable = grantable_scopes(kind, of_store=bool(request.store_uid))
    if grantable is None:
        violations["store_uid"] = (
            f"must be empty for {kind.name}" if request.store_uid else f"{kind.name} needs a store"
        )
        grantable = DEFAULT_SCOPES[kind]
    asked = request.scopes or DEFAULT_SCOPES[kind]
    for place, scope in enumerate(asked):
        if scope not in grantable:
            violations[f"scopes[{place}]"] = f"such a key can only have {', '.join(grantable)}"
    if violations:
        raise InvalidRequest(violations)
    scopes = [scope for scope in grantable if scope in asked]
    return _KeyOrder(kind=kind, scopes=scopes, expire_time=expire_time)


def _read_page_size(asked: int) -> int:
    return read_page_size(asked, default=_PAGE_SIZE, largest=_LARGEST_PAGE_SIZE)


def _check_may_give(scopes: Sequence[str]) -> None:
    """Raises `ScopeMissing` if the caller calls for a key that lacks one of the scopes."""
    key = get_call().key
    if key is None:
        return
    for scope in scopes:
        if scope not in key.scopes:
            raise ScopeMissing(scope)


async def _find_store(transaction: AsyncConnection, uid: str, *, lock: bool = False) -> Store:
    store = await repository.find_store(transaction, uid, lock=lock)
    if store is None:
        raise _no_store(uid)
    return store


def _no_store(uid: str) -> NotFound:
    return NotFound("There is no such store.", {"uid": _shorten(uid)})


def _shorten(uid: str) -> str:
    # It goes into the status, whose size HTTP/2 limits.
    return uid[:64]


def _store_message(store: Store) -> store_pb2.Store:
    return store_pb2.Store(
        uid=store.uid,
        display_name=store.display_name,
        create_time=_timestamp(store.create_time),
        update_time=_timestamp(store.update_time),
        delete_time=_timestamp(store.delete_time),
        purge_time=_timestamp(store.purge_time),
    )


def _key_message(key: ApiKey) -> api_key_pb2.ApiKey:
    return api_key_pb2.ApiKey(
        uid=key.uid,
        store_uid=key.store_uid,
        kind=_KIND_VALUES[key.kind],
        display_name=key.display_name,
        hint=key.hint,
        scopes=key.scopes,
        create_time=_timestamp(key.create_time),
        expire_time=_timestamp(key.expire_time),
        revoke_time=_timestamp(key.revoke_time),
    )


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message
