"""What makes an event worth keeping, and when it happened."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.ingest.occurrence import OLDEST, OLDEST_CLAIM
from services.ingest.verdicts import (
    Arrival,
    EventType,
    Reading,
    Rejection,
    Salvage,
    read_event,
    salvage_event,
)

RECEIVED = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def read(payload: bytes, **arrival: Any) -> Reading:
    known = {"receive_time": RECEIVED, "sent_time": None, "default_type": None, **arrival}
    return read_event(payload, Arrival(**known), limit_bytes=32 * 1024)


def enrichment_of(reading: Reading) -> Any:
    return json.loads(reading.enrichment)


def viewed(**fields: Any) -> bytes:
    event = {"type": "track", "event": "Product Viewed", "userId": "ada", **fields}
    return json.dumps({name: value for name, value in event.items() if value is not ...}).encode()


def test_what_is_not_known_is_no_fault() -> None:
    payload = viewed(messageId="m1", properties={"colour": 9.5}, plan={"a": [1, None]})

    reading = read(payload)

    assert reading == Reading(
        EventType.TRACK, "Product Viewed", "m1", "ada", "", RECEIVED, payload, b"{}"
    )


def test_many_brackets_are_not_deep() -> None:
    beside_each_other = [{"sku": "[[[[", "tags": []}] * 100

    assert read(viewed(properties={"products": beside_each_other}))


def test_numbers_and_nulls_stand_for_ids_as_the_sdks_send_them() -> None:
    reading = read(viewed(userId=42, anonymousId=None, messageId=None))

    assert (reading.user_id, reading.anonymous_id, reading.message_id) == ("42", "", "")


def test_the_route_says_the_type_where_the_event_does_not() -> None:
    assert read(viewed(type=...), default_type=EventType.TRACK).type is EventType.TRACK
    assert read(viewed(type="page"), default_type=EventType.TRACK).type is EventType.PAGE


@pytest.mark.parametrize(
    ("payload", "code", "path"),
    [
        (viewed(event=""), "name_missing", "event"),
        (viewed(event=...), "name_missing", "event"),
        (viewed(event=None), "name_missing", "event"),
        (viewed(event=7), "wrong_type", "event"),
        (viewed(event="e" * 256), "text_too_long", "event"),
        (viewed(userId=...), "identity_missing", ""),
        (viewed(userId="", anonymousId=""), "identity_missing", ""),
        (viewed(userId=["ada"]), "wrong_type", "userId"),
        (viewed(userId=True), "wrong_type", "userId"),
        (viewed(messageId="m" * 256), "text_too_long", "messageId"),
        (viewed(type=...), "type_missing", "type"),
        (viewed(type="purchase"), "type_unknown", "type"),
        (viewed(type="group"), "group_id_missing", "groupId"),
        (viewed(type="alias"), "previous_id_missing", "previousId"),
        (viewed(timestamp="yesterday"), "time_not_valid", "timestamp"),
        (viewed(timestamp="0001-01-01T00:00:00+14:00"), "time_not_valid", "timestamp"),
        (viewed(timestamp="9999-12-31T23:59:59-14:00"), "time_not_valid", "timestamp"),
        (viewed(timestamp="2026-11-22T12:00:00Z", sentAt="?"), "time_not_valid", "sentAt"),
        (viewed(properties="x" * 40_000), "event_too_large", ""),
        (b'{"type":"track","event":"\xff","userId":"ada"}', "not_utf8", ""),
        (b'{"type":"track","event":"a","userId":"ada","p":"\xff"}', "not_utf8", ""),
        (b'{"type":"track","event":"a","userId":"ada","p":[1,]}', "not_json", ""),
        (b'{"type":"track","event":"a","userId":"ada","p":NaN}', "not_json", ""),
        (b'{"type":"track","event":"a","userId":"\\ud800"}', "not_json", ""),
        (b'{"p":' + b"[" * 15_000 + b"]" * 15_000 + b"}", "not_json", ""),
        (
            b'{"type":"track","event":"a","userId":"u","p":' + b"[" * 64 + b"]" * 64 + b"}",
            "too_deep",
            "",
        ),
        (viewed(userId=int("9" * 400)), "text_too_long", "userId"),
        (
            viewed(userId="9" * 5000).replace(b'"9', b"9").replace(b'9"', b"9"),
            "wrong_type",
            "userId",
        ),
        (b"[]", "wrong_type", ""),
        (b"", "not_json", ""),
    ],
)
def test_a_fault_is_named_with_its_place(payload: bytes, code: str, path: str) -> None:
    with pytest.raises(Rejection) as caught:
        read(payload)

    assert (caught.value.code, caught.value.path) == (code, path)


@pytest.mark.parametrize(
    "payload",
    [
        viewed(userId=["planted"]),
        viewed(timestamp="planted"),
        viewed(type="planted"),
        viewed(event="planted" * 99),
    ],
)
def test_a_fault_never_repeats_what_the_event_holds(payload: bytes) -> None:
    with pytest.raises(Rejection) as caught:
        read(payload)

    assert "planted" not in str(caught.value)


def test_the_senders_clock_is_corrected_by_how_late_it_says_it_sent() -> None:
    an_hour_fast = viewed(timestamp="2026-11-22T12:58:00Z", sentAt="2026-11-22T13:00:00Z")

    assert read(an_hour_fast).occur_time == RECEIVED - timedelta(minutes=2)


def test_the_time_of_the_batch_corrects_events_that_name_none() -> None:
    sent_time = RECEIVED + timedelta(hours=1)
    offline_for_days = viewed(originalTimestamp="2026-11-19T13:00:00.5+00:00")

    reading = read(offline_for_days, sent_time=sent_time)

    assert reading.occur_time == RECEIVED - timedelta(days=3) + timedelta(seconds=0.5)


def test_nothing_happens_after_it_was_received() -> None:
    tomorrow = read(viewed(timestamp="2026-11-23T12:00:00Z"))
    sent_before_it_happened = read(
        viewed(timestamp="2026-11-22T11:00:00Z", sentAt="2026-11-08T11:00:00Z")
    )
    a_moment_ahead = read(viewed(timestamp="2026-11-22T12:00:00.9Z"))

    assert {tomorrow.occur_time, sent_before_it_happened.occur_time} == {RECEIVED}
    assert a_moment_ahead.occur_time == RECEIVED
    assert enrichment_of(tomorrow) == {"flags": ["time_in_future"]}
    assert enrichment_of(sent_before_it_happened) == {"flags": ["time_in_future"]}
    assert enrichment_of(a_moment_ahead) == {}


@pytest.mark.parametrize(
    "fields",
    [
        {"timestamp": "1970-01-02T00:00:00Z", "sentAt": "9998-12-31T00:00:00Z"},
        {"timestamp": "0001-01-01T00:00:00Z"},
        {"timestamp": "1999-12-31T23:59:59-12:00"},
    ],
)
def test_no_event_is_held_to_be_older_than_ten_years_or_a_month_if_anybody_made_it_up(
    fields: dict[str, str],
) -> None:
    word = read(viewed(**fields), confirmed=True)
    claim = read(viewed(**fields))

    assert (word.occur_time, claim.occur_time) == (RECEIVED - OLDEST, RECEIVED - OLDEST_CLAIM)
    assert enrichment_of(word)["flags"] == enrichment_of(claim)["flags"] == ["time_too_old"]


def test_a_device_may_have_been_offline_for_weeks() -> None:
    reading = read(viewed(timestamp="2026-10-24T12:00:00Z"))

    assert reading.occur_time == RECEIVED - timedelta(days=29)
    assert enrichment_of(reading) == {}


def test_when_the_batch_was_sent_is_kept_with_each_event() -> None:
    sent_time = RECEIVED - timedelta(seconds=2)

    by_the_batch = read(viewed(), sent_time=sent_time)
    by_itself = read(viewed(sentAt="2026-11-22T11:00:00Z"), sent_time=sent_time)

    assert enrichment_of(by_the_batch) == {"time": {"sent": "2026-11-22T11:59:58Z"}}
    assert enrichment_of(by_itself) == {}


def test_the_size_of_an_event_is_the_senders_own_limit_if_it_has_one() -> None:
    payload = viewed(properties={"note": "x" * 200})

    assert read(viewed(properties={"note": "x" * 40_000}), event_bytes=50_000)
    with pytest.raises(Rejection, match="100 bytes"):
        read(payload, event_bytes=100)


def test_what_can_be_told_of_a_rejected_event_is_told() -> None:
    arrival = Arrival(RECEIVED, default_type=EventType.TRACK)

    salvage = salvage_event(
        b'{"event": "Paid", "messageId": 7, "userId": ["x"], "anonymousId": "a", "properties": 1}',
        arrival,
    )

    assert salvage == Salvage(EventType.TRACK, "Paid", "7", "", "a")
    assert salvage_event(b"[", arrival) == salvage_event(b"[]", arrival) == Salvage()
