"""The SQL of an append: as few and as cheap statements as an exact verdict allows.

Written as text, since this is what Ingest spends its time on: SQLAlchemy takes three
times as long to send a row as the database to store it. On MySQL the values stand in the
text, as numbers and as hex literals, which need no escaping and can't be broken out of.
Functions take the caller's transaction and never end it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.ingest.verdicts import Verdict

POSITION_BITS = 48
"""How many low bits of an event's id are its position; the shard stands above them."""

_COLUMNS = (
    "id, uid, store_uid, message_key, message_id, type, name, user_id, anonymous_id, "
    "occur_time, receive_time, payload, enrichment"
)
_INSERT_PARAMETERS = f"INSERT INTO events ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"  # noqa: S608 - as below
_INSERT_LITERALS = f"INSERT INTO events ({_COLUMNS}) VALUES "  # noqa: S608 - no one's text
# A server refuses what is larger than its `max_allowed_packet`, by default 16 MiB or more.
_CHARACTERS_A_STATEMENT = 8 * 1024 * 1024
# Where a statement is longer than this, another one costs nothing.
_KEYS_A_QUERY = 500

Key = tuple[bytes, bytes]
"""What must be unique: one store's message is one event."""


class NewEvent(msgspec.Struct, frozen=True, gc=False):
    """An event that is to be stored. A struct, which is made in a tenth of a dataclass's time."""

    uid: bytes
    store_uid: bytes
    """The 16 bytes of the store's uid."""
    message_key: bytes
    message_id: str
    type: int
    name: str
    user_id: str
    anonymous_id: str
    occur_time: datetime
    receive_time: datetime
    hour: int
    """Of the receive time: hours since 1970."""
    payload: bytes
    enrichment: bytes

    @property
    def key(self) -> Key:
        """What must be unique."""
        return self.store_uid, self.message_key


class HeadMissing(Exception):
    """The shard has no head, since nothing could be written when the process began."""


class Tally(msgspec.Struct, frozen=True, order=True):
    """What the verdicts are counted by."""

    store_uid: bytes
    hour: int
    verdict: int


class LogHead(msgspec.Struct, frozen=True):
    """What a shard's head says."""

    position: int
    suppression_revision: int
    change_number: int


async def lock_log(transaction: AsyncConnection, shard: int) -> LogHead:
    """The shard's head, locked: until the transaction ends, no one else writes to the shard.

    Raises `HeadMissing`.
    """
    lock = "" if _is_sqlite(transaction) else " FOR UPDATE"  # SQLite has one writer anyway.
    found = await transaction.exec_driver_sql(
        "SELECT position, suppression_revision, change_number "  # noqa: S608 - a number
        f"FROM log_heads WHERE shard = {shard:d}{lock}"
    )
    row = found.one_or_none()
    if row is None:
        raise HeadMissing(f"shard {shard}")
    return LogHead(*tuple(row))


async def claim_positions(
    transaction: AsyncConnection, shard: int, *, log: LogHead, count: int
) -> bool:
    """Lock the shard's head as `lock_log` does, and move it on by so many positions.

    False, and nothing locked, if the head isn't what it was. One statement, where locking
    and moving take two.
    """
    claimed = await transaction.exec_driver_sql(
        f"UPDATE log_heads SET position = {log.position + count:d} "  # noqa: S608 - numbers
        f"WHERE shard = {shard:d} AND position = {log.position:d} "
        f"AND suppression_revision = {log.suppression_revision:d}"
    )
    return claimed.rowcount == 1


async def move_head(transaction: AsyncConnection, shard: int, *, head: int) -> None:
    """Say which position is the shard's last now. The caller has locked it."""
    await transaction.exec_driver_sql(
        f"UPDATE log_heads SET position = {head:d} WHERE shard = {shard:d}"  # noqa: S608 - numbers
    )


async def insert_events(
    transaction: AsyncConnection, shard: int, *, head: int, new: Sequence[NewEvent]
) -> bool:
    """Store events after the head; False, and nothing stored, if one of them is known."""
    if not new:
        return True
    first_id = (shard << POSITION_BITS | head) + 1
    try:
        if _is_sqlite(transaction):
            async with transaction.begin_nested():
                await put_events(transaction, list(enumerate(new, first_id)))
        else:
            rows_text = [_as_literals(id_, event) for id_, event in enumerate(new, first_id)]
            if sum(map(len, rows_text)) <= _CHARACTERS_A_STATEMENT:
                # A statement that meets a duplicate takes back all that it did.
                await transaction.exec_driver_sql(_INSERT_LITERALS + ",".join(rows_text))
            else:
                async with transaction.begin_nested():
                    await _put_literals(transaction, rows_text)
    except IntegrityError:
        return False
    return True


async def put_events(transaction: AsyncConnection, placed: Sequence[tuple[int, NewEvent]]) -> None:
    """Store events under their ids; raises `IntegrityError` if one of them is known."""
    if not placed:
        return
    if _is_sqlite(transaction):
        rows = [_as_row(id_, event) for id_, event in placed]
        await transaction.exec_driver_sql(_INSERT_PARAMETERS, rows)
    else:
        await _put_literals(transaction, [_as_literals(id_, event) for id_, event in placed])


async def _put_literals(transaction: AsyncConnection, rows_text: Sequence[str]) -> None:
    for part in _split(rows_text):
        await transaction.exec_driver_sql(_INSERT_LITERALS + ",".join(part))


async def find_known(transaction: AsyncConnection, keys: Collection[Key]) -> set[Key]:
    """Which of these keys are stored. Exact under the lock of their shard's head."""
    by_store: dict[bytes, list[bytes]] = {}
    for store_uid, message_key in keys:
        by_store.setdefault(store_uid, []).append(message_key)
    known: set[Key] = set()
    for store_uid, message_keys in by_store.items():
        for start in range(0, len(message_keys), _KEYS_A_QUERY):
            asked = ",".join(_blob(key) for key in message_keys[start : start + _KEYS_A_QUERY])
            found = await transaction.exec_driver_sql(
                "SELECT message_key FROM events "  # noqa: S608 - hex digits
                f"WHERE store_uid = {_blob(store_uid)} AND message_key IN ({asked})"
            )
            known |= {(store_uid, bytes(key)) for key in found.scalars()}
    return known


async def add_tallies(transaction: AsyncConnection, tallies: Mapping[Tally, int]) -> None:
    """Count verdicts, by store and hour."""
    if not tallies:
        return
    values = ",".join(
        f"({_blob(tally.store_uid)},{tally.hour:d},{tally.verdict:d},{count:d})"
        for tally, count in sorted(tallies.items())
    )
    on_known = (
        "ON CONFLICT DO UPDATE SET event_count = event_count + excluded.event_count"
        if _is_sqlite(transaction)
        else "ON DUPLICATE KEY UPDATE event_count = event_count + VALUES(event_count)"
    )
    await transaction.exec_driver_sql(
        "INSERT INTO verdict_hours (store_uid, hour, verdict, event_count) "  # noqa: S608 - as above
        f"VALUES {values} {on_known}"
    )


async def count_day(
    transaction: AsyncConnection, store_uid: bytes, *, day: int, verdicts: Collection[Verdict]
) -> int:
    """How many of a store's events got one of these verdicts on a day (days since 1970)."""
    among = ",".join(f"{verdict:d}" for verdict in verdicts)
    found = await transaction.exec_driver_sql(
        "SELECT SUM(event_count) FROM verdict_hours "  # noqa: S608 - hex digits and numbers
        f"WHERE store_uid = {_blob(store_uid)} "
        f"AND hour >= {day * 24:d} AND hour < {day * 24 + 24:d} "
        f"AND verdict IN ({among})"
    )
    return int(found.scalar() or 0)


def _split(rows_text: Sequence[str]) -> Iterator[Sequence[str]]:
    """The rows, in as few statements as may be."""
    begin = length = 0
    for end, row in enumerate(rows_text):
        length += len(row)
        if end > begin and length > _CHARACTERS_A_STATEMENT:
            yield rows_text[begin:end]
            begin, length = end, len(row)
    yield rows_text[begin:]


def _as_row(id_: int, event: NewEvent) -> tuple[Any, ...]:
    return (
        id_,
        event.uid,
        event.store_uid,
        event.message_key,
        event.message_id,
        event.type,
        event.name,
        event.user_id,
        event.anonymous_id,
        _time(event.occur_time),
        _receive_time(event.receive_time),
        event.payload,
        event.enrichment,
    )


def _as_literals(id_: int, event: NewEvent) -> str:
    return (
        f"({id_:d},x'{event.uid.hex()}',x'{event.store_uid.hex()}',x'{event.message_key.hex()}',"
        f"{_text(event.message_id)},{event.type:d},{_text(event.name)},{_text(event.user_id)},"
        f"{_text(event.anonymous_id)},'{_time(event.occur_time)}','{_receive_time(event.receive_time)}',"
        f"x'{event.payload.hex()}',x'{event.enrichment.hex()}')"
    )


def _blob(value: bytes) -> str:
    return f"x'{value.hex()}'"


def _text(value: str) -> str:
    return f"_utf8mb4 x'{value.encode().hex()}'" if value else "''"


def _time(value: datetime) -> str:
    """As SQLAlchemy writes times on both databases, with all six digits; must be UTC."""
    return value.isoformat(" ", "microseconds")[:26]


@lru_cache(maxsize=1024)
def _receive_time(value: datetime) -> str:
    """`_time` of what the events of a request share."""
    return _time(value)


def _is_sqlite(transaction: AsyncConnection) -> bool:
    return transaction.dialect.name == "sqlite"
