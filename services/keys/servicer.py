"""Serves `shoptrail.keys.v1.Keys`: stores, the keys that open them, and whether a key works."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from sqlalchemy.ext.asyncio import AsyncConnection

from common.context import Call, get_call
from common.db import Database
from common.errors import InvalidRequest, MeshError, NotFound, ScopeMissing, WrongState
from common.interceptors.wrap import Context
from common.page_token import PageTokens
from common.uid import is_uid
from services.keys import repository
from services.keys.key_text import is_key_text
from services.keys.messages import entry_message, key_message, store_message
from services.keys.minting import Mint
from services.keys.orders import (
    read_asked_page_size,
    read_key_changes,
    read_key_order,
    read_rotation,
    read_store_name,
    read_uses,
)
from services.keys.peppers import Pepper
from services.keys.repository import ApiKey, Store
from services.keys.trail import START, Action, Actor, Deed, Outcome, find_break
from shoptrail.errors.v1.error_reason_pb2 import ErrorReason
from shoptrail.keys.v1 import keys_pb2, keys_pb2_grpc

SERVICE = keys_pb2.DESCRIPTOR.services_by_name["Keys"].full_name

_RESTORABLE = timedelta(days=30)
_REMEMBER = Duration(seconds=10)
_EXPOSURE_RECORDED_AGAIN = timedelta(hours=1)
_LONGEST_WAIT_SECONDS = 20.0
# How soon a gateway learns of a change, on whichever replica it was made.
_LOOK_AGAIN_SECONDS = 0.2
_REVISIONS_A_CALL = 1000
_PURGED_A_CALL = 1000
_ENTRIES_A_CALL = 10_000


class _Change:
    """A transaction that changes stores or keys, and what of it is to be recorded."""

    def __init__(self, transaction: AsyncConnection) -> None:
        self.transaction = transaction
        self.deeds: list[Deed] = []

    def note(
        self, action: Action, *, store_uid: str = "", key_uid: str = "", detail: str = ""
    ) -> None:
        """Have it recorded that this was done."""
        self.deeds.append(
            Deed(
                action,
                store_uid=store_uid or None,
                key_uid=key_uid or None,
                detail=detail,
            )
        )


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
        self._mint = Mint(peppers)
        self._page_tokens = page_tokens
        self._now = now
        self._stopping = asyncio.Event()
        self._looking: asyncio.Task[int] | None = None
        self._looked_at = 0.0

    def stop(self) -> None:
        """Answer those who wait for revisions: the process is about to end."""
        self._stopping.set()

    async def CreateStore(
        self, request: keys_pb2.CreateStoreRequest, context: Context
    ) -> keys_pb2.CreateStoreResponse:
        display_name = read_store_name(request.display_name)
        async with self._changing(Action.CREATE_STORE, request) as change:
            store = await repository.add_store(
                change.transaction, display_name=display_name, now=self._now()
            )
            change.note(Action.CREATE_STORE, store_uid=store.uid)
        return keys_pb2.CreateStoreResponse(store=store_message(store))

    async def GetStore(
        self, request: keys_pb2.GetStoreRequest, context: Context
    ) -> keys_pb2.GetStoreResponse:
        async with self._database.read() as snapshot:
            store = await _find_store(snapshot, request.store_uid)
        return keys_pb2.GetStoreResponse(store=store_message(store))

    async def ListStores(
        self, request: keys_pb2.ListStoresRequest, context: Context
    ) -> keys_pb2.ListStoresResponse:
        page_size = read_asked_page_size(request.page_size)
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
            stores=[store_message(store) for store in stores[:page_size]]
        )
        if len(stores) > page_size:
            response.next_page_token = self._page_tokens.seal(request, [stores[page_size - 1].id])
        return response

    async def UpdateStore(
        self, request: keys_pb2.UpdateStoreRequest, context: Context
    ) -> keys_pb2.UpdateStoreResponse:
        if request.HasField("display_name"):
            read_store_name(request.display_name)
        async with self._changing(Action.UPDATE_STORE, request) as change:
            store = await _find_open_store(change.transaction, request.store_uid)
            if request.HasField("display_name") and request.display_name != store.display_name:
                store = await repository.rename_store(
                    change.transaction, store, display_name=request.display_name, now=self._now()
                )
                change.note(Action.UPDATE_STORE, store_uid=store.uid)
        return keys_pb2.UpdateStoreResponse(store=store_message(store))

    async def DeleteStore(
        self, request: keys_pb2.DeleteStoreRequest, context: Context
    ) -> keys_pb2.DeleteStoreResponse:
        async with self._changing(Action.DELETE_STORE, request) as change:
            store = await _find_store(change.transaction, request.store_uid, lock=True)
            if store.delete_time is None:
                now = self._now()
                store = await repository.set_deletion(
                    change.transaction,
                    store,
                    delete_time=now,
                    purge_time=now + _RESTORABLE,
                    now=now,
                )
                change.note(Action.DELETE_STORE, store_uid=store.uid)
        return keys_pb2.DeleteStoreResponse(store=store_message(store))

    async def UndeleteStore(
        self, request: keys_pb2.UndeleteStoreRequest, context: Context
    ) -> keys_pb2.UndeleteStoreResponse:
        async with self._changing(Action.UNDELETE_STORE, request) as change:
            store = await _find_store(change.transaction, request.store_uid, lock=True)
            # Asked after the lock was got: its keys may have been purged while we waited.
            now = self._now()
            if store.purge_time is not None and store.purge_time <= now:
                raise _no_store(request.store_uid)
            if store.delete_time is not None:
                store = await repository.set_deletion(
                    change.transaction, store, delete_time=None, purge_time=None, now=now
                )
                change.note(Action.UNDELETE_STORE, store_uid=store.uid)
        return keys_pb2.UndeleteStoreResponse(store=store_message(store))

    async def CreateKey(
        self, request: keys_pb2.CreateKeyRequest, context: Context
    ) -> keys_pb2.CreateKeyResponse:
        now = self._now()
        order = read_key_order(request, now=now)
        new, text = self._mint.new_key(
            order.kind,
            test=request.test,
            display_name=request.display_name,
            scopes=order.scopes,
            expire_time=order.expire_time,
            allowed_origins=order.allowed_origins,
            rotate_seconds=order.rotate_seconds,
        )
        async with self._changing(Action.CREATE_KEY, request) as change:
            _check_may_give(order.scopes)
            store = None
            if request.store_uid:
                store = await _find_open_store(change.transaction, request.store_uid)
            key = await repository.add_key(
                change.transaction, new, store_id=store.id if store else None, now=now
            )
            change.note(Action.CREATE_KEY, store_uid=key.store_uid, key_uid=key.uid)
        return keys_pb2.CreateKeyResponse(key=key_message(key, now=now), text=text)

    async def GetKey(
        self, request: keys_pb2.GetKeyRequest, context: Context
    ) -> keys_pb2.GetKeyResponse:
        async with self._database.read() as snapshot:
            key = await _find_key(snapshot, request.store_uid, request.key_uid)
        return keys_pb2.GetKeyResponse(key=key_message(key, now=self._now()))

    async def ListKeys(
        self, request: keys_pb2.ListKeysRequest, context: Context
    ) -> keys_pb2.ListKeysResponse:
        page_size = read_asked_page_size(request.page_size)
        place = self._page_tokens.open(request)
        now = self._now()
        async with self._database.read() as snapshot:
            store = await _find_store(snapshot, request.store_uid) if request.store_uid else None
            keys = await repository.list_keys(
                snapshot,
                store_id=store.id if store else None,
                show_deleted=request.show_deleted,
                before_id=place[0] if place else None,
                limit=page_size + 1,
            )
        response = keys_pb2.ListKeysResponse(
            keys=[key_message(key, now=now) for key in keys[:page_size]]
        )
        if len(keys) > page_size:
            response.next_page_token = self._page_tokens.seal(request, [keys[page_size - 1].id])
        return response

    async def UpdateKey(
        self, request: keys_pb2.UpdateKeyRequest, context: Context
    ) -> keys_pb2.UpdateKeyResponse:
        async with self._changing(Action.UPDATE_KEY, request) as change:
            now = self._now()
            key = await _find_kept_key(change.transaction, request.store_uid, request.key_uid)
            changes = read_key_changes(request, key, now=now)
            if key.has_ended(now):
                raise _has_ended(key)
            if changes:
                key = await repository.change_key(change.transaction, key, changes)
                change.note(Action.UPDATE_KEY, store_uid=key.store_uid, key_uid=key.uid)
        return keys_pb2.UpdateKeyResponse(key=key_message(key, now=now))

    async def RotateKey(
        self, request: keys_pb2.RotateKeyRequest, context: Context
    ) -> keys_pb2.RotateKeyResponse:
        rotation = read_rotation(request, now=self._now())
        async with self._changing(Action.ROTATE_KEY, request) as change:
            if request.store_uid:
                await _find_open_store(change.transaction, request.store_uid)
            key = await _find_kept_key(change.transaction, request.store_uid, request.key_uid)
            _check_may_give(key.scopes)
            # Asked after the lock was got, so that no overlap is shorter than promised.
            now = self._now()
            if key.has_ended(now):
                raise _has_ended(key)
            if key.successor_uid is not None:
                successor = await repository.find_key(change.transaction, key.successor_uid)
                if successor is not None and successor.is_working(now):
                    raise WrongState(
                        "The key has a successor that works. Rotate or revoke that one.",
                        {"uid": key.uid, "successor_key_uid": successor.uid},
                    )
            new, old, text, deeds = await self._mint.rotate(
                change.transaction,
                key,
                overlap=rotation.overlap,
                expire_time=rotation.expire_time,
                now=now,
            )
            change.deeds += deeds
        return keys_pb2.RotateKeyResponse(
            key=key_message(new, now=now), text=text, old_key=key_message(old, now=now)
        )

    async def RevokeKey(
        self, request: keys_pb2.RevokeKeyRequest, context: Context
    ) -> keys_pb2.RevokeKeyResponse:
        async with self._changing(Action.REVOKE_KEY, request) as change:
            key = await _find_key(change.transaction, request.store_uid, request.key_uid, lock=True)
            now = self._now()
            if key.revoke_time is None:
                key = await repository.change_key(
                    change.transaction, key, {"revoke_time": min(now, key.expire_time or now)}
                )
                change.note(Action.REVOKE_KEY, store_uid=key.store_uid, key_uid=key.uid)
        return keys_pb2.RevokeKeyResponse(key=key_message(key, now=now))

    async def DeleteKey(
        self, request: keys_pb2.DeleteKeyRequest, context: Context
    ) -> keys_pb2.DeleteKeyResponse:
        async with self._changing(Action.DELETE_KEY, request) as change:
            key = await _find_key(change.transaction, request.store_uid, request.key_uid, lock=True)
            now = self._now()
            if key.delete_time is None:
                times = {"delete_time": now, "purge_time": now + _RESTORABLE}
                key = await repository.change_key(change.transaction, key, times)
                change.note(Action.DELETE_KEY, store_uid=key.store_uid, key_uid=key.uid)
        return keys_pb2.DeleteKeyResponse(key=key_message(key, now=now))

    async def UndeleteKey(
        self, request: keys_pb2.UndeleteKeyRequest, context: Context
    ) -> keys_pb2.UndeleteKeyResponse:
        async with self._changing(Action.UNDELETE_KEY, request) as change:
            key = await _find_key(change.transaction, request.store_uid, request.key_uid, lock=True)
            now = self._now()
            if key.purge_time is not None and key.purge_time <= now:
                raise _no_key(request.key_uid)
            if key.delete_time is not None:
                times = {"delete_time": None, "purge_time": None}
                key = await repository.change_key(change.transaction, key, times)
                change.note(Action.UNDELETE_KEY, store_uid=key.store_uid, key_uid=key.uid)
        return keys_pb2.UndeleteKeyResponse(key=key_message(key, now=now))

    async def ListKeyEvents(
        self, request: keys_pb2.ListKeyEventsRequest, context: Context
    ) -> keys_pb2.ListKeyEventsResponse:
        page_size = read_asked_page_size(request.page_size)
        place = self._page_tokens.open(request)
        if request.store_uid and not is_uid("sto", request.store_uid):
            raise _no_store(request.store_uid)
        # The store itself may be purged; what was done to it is on record all the same.
        async with self._database.read() as snapshot:
            entries = await repository.list_entries(
                snapshot,
                store_uid=request.store_uid or None,
                before=place[0] if place else None,
                limit=page_size + 1,
            )
        response = keys_pb2.ListKeyEventsResponse(
            events=[entry_message(entry) for entry in entries[:page_size]]
        )
        if len(entries) > page_size:
            last = entries[page_size - 1].position
            response.next_page_token = self._page_tokens.seal(request, [last])
        return response

    async def VerifyAudit(
        self, request: keys_pb2.VerifyAuditRequest, context: Context
    ) -> keys_pb2.VerifyAuditResponse:
        after = request.after_position
        faults = {}
        if after < 0:
            faults["after_position"] = "must not be negative"
        if request.after_hash and len(request.after_hash) != len(START):
            faults["after_hash"] = f"must have {len(START)} bytes"
        if faults:
            raise InvalidRequest(faults)
        async with self._database.read() as snapshot:
            head = await repository.get_head(snapshot)
            entries = await repository.read_trail(
                snapshot, start=max(after, 1), limit=_ENTRIES_A_CALL + 1
            )
        previous = START
        if after:
            if not entries or entries[0].position != after:
                return keys_pb2.VerifyAuditResponse(broken_position=after, done=True)
            previous = entries.pop(0).hash
        entries = entries[:_ENTRIES_A_CALL]
        broken = find_break(entries, after_position=after, previous=previous)
        if request.after_hash and request.after_hash != previous:
            broken = after
        position = entries[-1].position if entries else after
        if broken is None and len(entries) < _ENTRIES_A_CALL and position != head:
            broken = position + 1  # The last ones were removed.
        return keys_pb2.VerifyAuditResponse(
            intact=broken is None,
            broken_position=broken or 0,
            position=position,
            hash=entries[-1].hash if entries else previous,
            done=position >= head,
        )

    async def VerifyKey(
        self, request: keys_pb2.VerifyKeyRequest, context: Context
    ) -> keys_pb2.VerifyKeyResponse:
        response = keys_pb2.VerifyKeyResponse(remember=_REMEMBER)
        known_form = is_key_text(request.text)
        hashes = self._mint.hashes_of(request.text) if known_form else []
        async with self._database.read() as snapshot:
            now = self._now()
            response.position = await repository.get_head(snapshot)
            key = None
            if request.key_uid:
                key = await repository.find_working_key_by_uid(snapshot, request.key_uid, now=now)
            elif hashes:
                key = await repository.find_working_key(snapshot, hashes, now=now)
            if key is not None:
                response.key.CopyFrom(key_message(key, now=now))
                response.session_epoch = key.session_epoch
                response.successor_text = await self._mint.find_successor_text(
                    snapshot, key, now=now
                )
        return response

    async def EndSessions(
        self, request: keys_pb2.EndSessionsRequest, context: Context
    ) -> keys_pb2.EndSessionsResponse:
        async with self._changing(Action.END_SESSIONS, request) as change:
            key = await repository.find_key(change.transaction, request.key_uid, lock=True)
            if key is None:
                raise _no_key(request.key_uid)
            await repository.change_key(
                change.transaction, key, {"session_epoch": key.session_epoch + 1}
            )
            change.note(Action.END_SESSIONS, store_uid=key.store_uid, key_uid=key.uid)
        return keys_pb2.EndSessionsResponse()

    async def WatchRevisions(
        self, request: keys_pb2.WatchRevisionsRequest, context: Context
    ) -> keys_pb2.WatchRevisionsResponse:
        after = request.after_position if request.HasField("after_position") else None
        if after is not None and after < 0:
            raise InvalidRequest({"after_position": "must not be negative"})
        until = time.monotonic() + min(max(request.wait.seconds, 0), _LONGEST_WAIT_SECONDS)
        head = await self._read_head()
        while True:
            left = until - time.monotonic()
            if after is None or head != after or left <= 0 or self._stopping.is_set():
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, _LOOK_AGAIN_SECONDS)):
                    await self._stopping.wait()
            head = await self._look_at_head()
        if after is None or head <= after:
            return keys_pb2.WatchRevisionsResponse(position=head)
        async with self._database.read() as snapshot:
            revisions = await repository.list_revisions(
                snapshot, after=after, limit=_REVISIONS_A_CALL
            )
        return keys_pb2.WatchRevisionsResponse(
            revisions=[
                keys_pb2.Revision(
                    key_uid=revision.key_uid or "", store_uid=revision.store_uid or ""
                )
                for revision in revisions
            ],
            position=revisions[-1].position if revisions else head,
        )

    async def ListPurgedStores(
        self, request: keys_pb2.ListPurgedStoresRequest, context: Context
    ) -> keys_pb2.ListPurgedStoresResponse:
        after = request.after_position
        if after < 0:
            raise InvalidRequest({"after_position": "must not be negative"})
        async with self._database.read() as snapshot:
            found = await repository.list_purged(snapshot, after=after, limit=_PURGED_A_CALL)
        return keys_pb2.ListPurgedStoresResponse(
            stores=[
                keys_pb2.PurgedStore(store_uid=store_uid, position=position)
                for position, store_uid in found
            ]
        )

    async def ReportKeyUse(
        self, request: keys_pb2.ReportKeyUseRequest, context: Context
    ) -> keys_pb2.ReportKeyUseResponse:
        uses = read_uses(request)
        if uses:
            now = self._now()
            async with self._database.begin() as transaction:
                deeds = await repository.note_uses(
                    transaction, uses, exposed_before=now - _EXPOSURE_RECORDED_AGAIN
                )
                await repository.record(transaction, deeds, _actor_of(get_call()), now=now)
        return keys_pb2.ReportKeyUseResponse()

    async def _read_head(self) -> int:
        async with self._database.read() as snapshot:
            return await repository.get_head(snapshot)

    async def _look_at_head(self) -> int:
        """The trail's head as it was a moment ago: one looks for all who wait."""
        now = time.monotonic()
        if self._looking is None or (
            self._looking.done() and now - self._looked_at >= _LOOK_AGAIN_SECONDS
        ):
            self._looked_at = now
            self._looking = asyncio.create_task(self._read_head())
        return await asyncio.shield(self._looking)

    @asynccontextmanager
    async def _changing(self, action: Action, request: _Aimed) -> AsyncIterator[_Change]:
        """A transaction whose deeds are recorded, as is that it was refused."""
        actor = _actor_of(get_call())
        try:
            async with self._database.begin() as transaction:
                change = _Change(transaction)
                yield change
                await repository.record(transaction, change.deeds, actor, now=self._now())
        except (NotFound, ScopeMissing, WrongState) as refusal:
            deed = _refused(action, request, refusal)
            async with self._database.begin() as transaction:
                await repository.record(transaction, [deed], actor, now=self._now())
            raise


_Aimed = (
    keys_pb2.CreateStoreRequest
    | keys_pb2.UpdateStoreRequest
    | keys_pb2.DeleteStoreRequest
    | keys_pb2.UndeleteStoreRequest
    | keys_pb2.CreateKeyRequest
    | keys_pb2.UpdateKeyRequest
    | keys_pb2.RotateKeyRequest
    | keys_pb2.RevokeKeyRequest
    | keys_pb2.DeleteKeyRequest
    | keys_pb2.UndeleteKeyRequest
    | keys_pb2.EndSessionsRequest
)


def _refused(action: Action, request: _Aimed, refusal: MeshError) -> Deed:
    store_uid = getattr(request, "store_uid", "")
    key_uid = getattr(request, "key_uid", "")
    return Deed(
        action,
        outcome=Outcome.REFUSED,
        store_uid=store_uid if is_uid("sto", store_uid) else None,
        key_uid=key_uid if is_uid("key", key_uid) else None,
        detail=ErrorReason.Name(refusal.reason).removeprefix("ERROR_REASON_"),
    )


def _actor_of(call: Call) -> Actor:
    return Actor(
        name=f"{call.identity} {call.key.uid[:64]}" if call.key else call.identity,
        request_id=call.request_id,
        client_network=call.client_network,
    )


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


async def _find_open_store(transaction: AsyncConnection, uid: str) -> Store:
    """The store, locked; one that is deleted counts as none."""
    store = await _find_store(transaction, uid, lock=True)
    if store.delete_time is not None:
        raise _no_store(uid)
    return store


async def _find_key(
    transaction: AsyncConnection, store_uid: str, uid: str, *, lock: bool = False
) -> ApiKey:
    key = await repository.find_key(transaction, uid, lock=lock)
    if key is None or key.store_uid != store_uid:
        raise _no_key(uid)
    return key


async def _find_kept_key(transaction: AsyncConnection, store_uid: str, uid: str) -> ApiKey:
    """The key, locked; one that is deleted counts as none."""
    key = await _find_key(transaction, store_uid, uid, lock=True)
    if key.delete_time is not None:
        raise _no_key(uid)
    return key


def _no_store(uid: str) -> NotFound:
    return NotFound("There is no such store.", {"uid": _shorten(uid)})


def _no_key(uid: str) -> NotFound:
    return NotFound("The store has no such key.", {"uid": _shorten(uid)})


def _has_ended(key: ApiKey) -> WrongState:
    return WrongState("The key has ended. Create another.", {"uid": key.uid})


def _shorten(uid: str) -> str:
    # It goes into the status, whose size HTTP/2 limits.
    return uid[:64]
