"""The way of a body from HTTP to the read models, without the processes and databases between."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial

from common.errors import BodyTooLarge, InvalidRequest
from common.uid import parse_uid
from gateway.envelope import Sent, read_batch, read_event
from services.ingest import verdicts
from services.ingest.intake import new_event, rejected_event
from services.ingest.rules import DEFAULT_RULES
from services.query.orders import TELLINGS, Order, entries_of, lines_of, read_statement
from services.query.projection import fact_of, recorded_event
from services.query.tallies import tallies_of_action, tallies_of_page
from shoptrail.ingest.v1.event_pb2 import Event

STORE = "sto_01jgfq8z00abcdefghjkmnpqrs"
LIMIT_BYTES = 32 * 1024
RECEIVED = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ARRIVALS = [
    verdicts.Arrival(RECEIVED, client_ip="192.0.2.7", user_agent="Mozilla/5.0"),
    verdicts.Arrival(RECEIVED, RECEIVED, verdicts.EventType.TRACK, gpc=True, confirmed=True),
]


def take(body: bytes) -> None:
    """Let a body go the way of all events. Raises what is a fault of ours."""
    for read in (read_batch, read_event):
        try:
            sent = read(body)
        except (InvalidRequest, BodyTooLarge):
            continue
        if read is read_batch:
            expect_all(body, sent)
        for payload in sent.payloads:
            for arrival in ARRIVALS:
                judge(payload, arrival)


def expect_all(body: bytes, sent: Sent) -> None:
    """Fail if there are not as many events as a reader of the standard library finds."""
    try:
        batch = json.loads(body)["batch"]
    except (ValueError, RecursionError):
        return
    assert len(sent.payloads) == len(batch), "An event got lost, or another was made of nothing."


def judge(payload: bytes, arrival: verdicts.Arrival) -> None:
    """As Ingest does, and then Query with what is accepted."""
    try:
        reading = verdicts.read_event(payload, arrival, limit_bytes=LIMIT_BYTES)
    except verdicts.Rejection as fault:
        rejected = partial(rejected_event, payload, fault, store_uid=STORE, rules=DEFAULT_RULES)
        assert rejected(arrival=arrival).code
        return
    hour = int(RECEIVED.timestamp()) // 3600
    event = new_event(reading, store=parse_uid("sto", STORE), receive_time=RECEIVED, hour=hour)
    project(event.message_id, reading)


def project(message_id: str, reading: verdicts.Reading) -> None:
    """What the read models make of an event."""
    logged = Event(
        uid="evt_01jgfq8z00abcdefghjkmnpqrs",
        store_uid=STORE,
        message_id=message_id,
        type=int(reading.type),  # type: ignore[arg-type]  # the same numbers
        name=reading.name,
        user_id=reading.user_id,
        anonymous_id=reading.anonymous_id,
        payload=reading.payload,
        enrichment=reading.enrichment,
        position=1,
    )
    logged.occur_time.FromDatetime(reading.occur_time)
    logged.receive_time.FromDatetime(RECEIVED)
    fact = fact_of(recorded_event(Event.FromString(logged.SerializeToString()), shard=0))
    tallies_of_page(fact)
    tallies_of_action(reading.name, fact.payload)
    order = Order()
    for telling in TELLINGS.values():
        statement = read_statement(
            fact.payload.properties,
            time=fact.event.occur_time,
            mark=fact.mark,
            trust=fact.event.trust,  # type: ignore[arg-type]  # a number of `Trust`
        )
        order.add(telling, statement)
    entries_of(order)
    lines_of(order)
