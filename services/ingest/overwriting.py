"""Overwrites events whose person must not be told of any more, with what may stay of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from common.uid import new_uid, parse_uid
from services.ingest import append
from services.ingest import subject_repository as repository
from services.ingest.intake import key_of
from services.ingest.remnants import Pseudonyms, remnant_of, with_other_order
from services.ingest.subject_repository import StoredEvent
from services.ingest.subjects import SubjectDigests, read_mentions

# What names more events than this is no order's id, whatever it is.
_MOST_EVENTS_OF_AN_ORDER = 500
ERASED, EXPIRED = "erased", "expired"
"""What a remnant says of why there is no more of it."""


async def overwrite(
    transaction: AsyncConnection,
    digests: SubjectDigests,
    store_uid: str,
    mine: Iterable[StoredEvent],
    *,
    log: append.LogHead,
    mark: str,
    now: datetime,
    is_mine: Callable[[StoredEvent], bool] = lambda _: False,
) -> Counter[str]:
    """Overwrite a store's events, all of one shard, under the lock of its head, `log`.

    With them all events are changed that name the same orders, so that each order's events
    name it alike afterwards, by a pseudonym that is then forgotten; those of which `is_mine`
    says so are overwritten too. `mark` is `ERASED` or `EXPIRED`. Returns how many rows of which
    table that was.
    """
    store = parse_uid("sto", store_uid)
    gone = {event.id: event for event in mine}
    shard = next(iter(gone.values())).shard
    pseudonyms = Pseudonyms()
    order_ids = {
        order_id
        for event in gone.values()
        if (order_id := read_mentions(event.type, event.payload).order_id)
    }
    by_digest = {digests.of_order(store, order_id): order_id for order_id in order_ids}
    named = await repository.find_ids_by_digest(
        transaction, store_uid, by_digest, most=_MOST_EVENTS_OF_AN_ORDER + 1
    )
    asked: set[int] = set()
    for digest, ids in named.items():
        if len(ids) > _MOST_EVENTS_OF_AN_ORDER:
            pseudonyms.put("order", by_digest[digest], by_digest[digest])
        else:
            asked |= {
                one for one in ids if one not in gone and one >> append.POSITION_BITS == shard
            }
    others: dict[int, StoredEvent] = {}
    for event in await repository.get_events(transaction, sorted(asked)):
        (gone if is_mine(event) else others)[event.id] = event
    changed = [overwritten(event, pseudonyms, mark=mark) for event in gone.values()]
    changed += [
        replace(event, payload=with_other_order(event.payload, pseudonyms))
        for event in others.values()
    ]
    changed.sort(key=lambda event: event.id)
    await repository.overwrite_events(
        transaction, shard, changed, change_number=log.change_number, now=now
    )
    found_by: defaultdict[bytes, set[int]] = defaultdict(set)
    for event in gone.values():
        for digest in digests.of_event(
            store,
            event.type,
            user_id=event.user_id,
            anonymous_id=event.anonymous_id,
            payload=event.payload,
        ):
            found_by[digest].add(event.id)
    for digest, ids in named.items():
        if of_others := others.keys() & ids:
            found_by[digest] |= of_others
    counts = Counter(events=len(gone))
    counts["event_people"] = await repository.forget_people(transaction, store_uid, found_by)
    if others:
        counts["events_of_others"] = len(others)
    return counts


async def expire(
    transaction: AsyncConnection,
    digests: SubjectDigests,
    shard: int,
    ids: Collection[int],
    *,
    now: datetime,
) -> None:
    """Overwrite events of a shard that are kept no longer; those that were before stay."""
    by_store: defaultdict[str, list[StoredEvent]] = defaultdict(list)
    log = await append.lock_log(transaction, shard)
    for event in await repository.get_events(transaction, sorted(ids)):
        if event.user_id or event.anonymous_id:  # Somebody may have erased it meanwhile.
            by_store[event.store_uid].append(event)
    for store_uid, found in sorted(by_store.items()):
        await overwrite(transaction, digests, store_uid, found, log=log, mark=EXPIRED, now=now)
        log = await append.lock_log(transaction, shard)


def overwritten(event: StoredEvent, pseudonyms: Pseudonyms, *, mark: str) -> StoredEvent:
    """What is left of an event: under ids that say nothing."""
    remnant = remnant_of(
        event.type,
        name=event.name,
        occur_time=event.occur_time,
        receive_time=event.receive_time,
        payload=event.payload,
        enrichment=event.enrichment or b"",
        pseudonyms=pseudonyms,
        mark=mark,
    )
    uid = new_uid("evt")
    return StoredEvent(
        id=event.id,
        uid=uid,
        store_uid=event.store_uid,
        message_key=key_of(uid),
        message_id=uid,
        type=event.type,
        name=remnant.name,
        user_id="",
        anonymous_id="",
        occur_time=remnant.occur_time,
        receive_time=remnant.receive_time,
        payload=remnant.payload,
        enrichment=remnant.enrichment,
    )
