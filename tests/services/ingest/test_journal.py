"""A journal gives back what was put into it, whatever becomes of its files."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.journal import (
    Damage,
    Journal,
    JournalNotValid,
    Record,
    Torn,
    encode_record,
    held_directory,
    scan,
)

SEED = 1
BODIES = st.lists(
    # Some that look like the beginning of a record.
    st.binary(max_size=60) | st.just(b"\xf0JR\x01" * 9) | st.just(encode_record(2, 7, 0, b"x")),
    min_size=1,
    max_size=8,
)


def encode(bodies: Sequence[bytes]) -> bytes:
    return b"".join(
        encode_record(SEED, number, 10 * number, body) for number, body in enumerate(bodies, 1)
    )


def records_of(pieces: Sequence[Record | Damage | Torn]) -> list[Record]:
    return [piece for piece in pieces if isinstance(piece, Record)]


def append(journal: Journal, *bodies: bytes) -> None:
    journal.append(bodies, microseconds=5)


def bodies_of(journal: Journal, *, most_records: int = 1000) -> list[bytes]:
    return [entry.body for entry in journal.read(most_records=most_records, most_bytes=1_000_000)]


@given(BODIES)
def test_what_is_whole_is_read_as_it_was_written(bodies: list[bytes]) -> None:
    pieces = list(scan(SEED, encode(bodies)))

    assert [record.body for record in records_of(pieces)] == bodies
    assert [record.sequence for record in records_of(pieces)] == list(range(1, len(bodies) + 1))
    assert len(records_of(pieces)) == len(pieces)


@given(BODIES, st.data())
def test_of_a_file_that_ends_early_all_whole_records_are_read_and_the_rest_is_torn(
    bodies: list[bytes], data: st.DataObject
) -> None:
    whole = encode(bodies)
    length = data.draw(st.integers(0, len(whole) - 1))
    zeros = data.draw(st.sampled_from([0, 0, 1, 100]))  # As some file systems leave them.

    pieces = list(scan(SEED, whole[:length] + bytes(zeros)))

    records = records_of(pieces)
    end = records[-1].end if records else 0
    assert [record.body for record in records] == bodies[: len(records)]
    assert length < len(encode(bodies[: len(records) + 1]))
    rest = pieces[len(records) :]
    if not zeros or length == end:
        assert rest == ([Torn(end)] if end < length + zeros else [])
    else:
        assert rest  # Not skipped silently, whichever it looks like.


@given(BODIES, st.data())
def test_what_is_altered_is_told_of_and_costs_no_other_record(
    bodies: list[bytes], data: st.DataObject
) -> None:
    whole = bytearray(encode(bodies))
    touched = data.draw(
        st.dictionaries(st.integers(0, len(whole) - 1), st.integers(1, 255), min_size=1, max_size=4)
    )
    for place, mask in touched.items():
        whole[place] ^= mask

    pieces = list(scan(SEED, bytes(whole)))

    begin = 0
    hurt = []
    for number, body in enumerate(bodies, 1):
        end = begin + len(encode_record(SEED, number, 0, body))
        if any(begin <= place < end for place in touched):
            hurt.append(number)
        begin = end
    read = {record.sequence: record.body for record in records_of(pieces)}
    assert read == {number: body for number, body in enumerate(bodies, 1) if number not in hurt}
    covered = 0
    for piece in pieces:
        assert piece.begin == covered
        covered = len(whole) if isinstance(piece, Torn) else piece.end
    assert covered == len(whole)


@given(st.binary(max_size=300))
def test_nothing_is_read_out_of_noise(noise: bytes) -> None:
    assert records_of(list(scan(SEED, noise))) == []


def test_records_outlive_the_process_and_come_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes=100)
    for number in range(20):
        append(journal, b"%d" % number)
    again = Journal(tmp_path)

    assert bodies_of(again) == bodies_of(journal) == [b"%d" % number for number in range(20)]
    assert len(list(tmp_path.glob("*.journal"))) > 3
    assert (again.uid, again.byte_count) == (journal.uid, journal.byte_count)
    assert (again.aside_count, again.missing_count) == (0, 0)


def test_what_is_forgotten_does_not_come_again_and_gives_room_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes=100)
    for number in range(20):
        append(journal, b"%d" % number)
    before = journal.byte_count

    first = journal.read(most_records=7, most_bytes=1_000_000)
    journal.forget(first[-1])

    assert bodies_of(journal, most_records=2) == [b"7", b"8"]
    assert 0 < journal.byte_count < before
    uid = journal.uid
    journal.forget(journal.read(most_records=100, most_bytes=1_000_000)[-1])
    assert (journal.is_empty, journal.byte_count, list(tmp_path.glob("*.journal"))) == (True, 0, [])
    append(journal, b"anew")
    assert bodies_of(journal) == [b"anew"]
    assert journal.uid != uid


def test_what_comes_after_a_restart_comes_after_what_was_there(tmp_path: Path) -> None:
    append(Journal(tmp_path), b"before", b"too")
    journal = Journal(tmp_path)
    append(journal, b"after")

    entries = journal.read(most_records=9, most_bytes=1_000_000)
    assert [(entry.sequence, entry.body) for entry in entries] == [
        (1, b"before"),
        (2, b"too"),
        (3, b"after"),
    ]


def test_a_page_is_bounded_and_holds_at_least_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    append(journal, b"x" * 100, b"y" * 100, b"z")

    assert [entry.body for entry in journal.read(most_records=9, most_bytes=50)] == [b"x" * 100]
    assert len(journal.read(most_records=9, most_bytes=200)) == 2


def test_a_torn_last_record_is_cut_off(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    append(journal, b"whole", b"torn")
    (path,) = tmp_path.glob("*.journal")
    os.truncate(path, journal.byte_count - 2)

    again = Journal(tmp_path)

    assert bodies_of(again) == [b"whole"]
    assert path.stat().st_size == again.byte_count
    assert again.aside_count == 0
    append(again, b"next")
    assert bodies_of(Journal(tmp_path)) == [b"whole", b"next"]


def test_a_damaged_record_is_set_aside_and_the_others_are_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    append(journal, b"first", b"second", b"third")
    (path,) = tmp_path.glob("*.journal")
    path.write_bytes(path.read_bytes().replace(b"second", b"sec0nd"))

    again = Journal(tmp_path)

    assert bodies_of(again) == [b"first", b"third"]
    assert (again.aside_count, again.missing_count) == (1, 1)
    (aside,) = (tmp_path / "aside").iterdir()
    assert b"sec0nd" in aside.read_bytes()


def test_a_file_that_is_missing_is_missed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes=1)
    for number in range(3):
        append(journal, b"%d" % number)
    sorted(tmp_path.glob("*.journal"))[1].unlink()

    again = Journal(tmp_path)

    assert bodies_of(again) == [b"0", b"2"]
    assert again.missing_count == 1


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_what_could_not_be_written_is_not_there_and_the_next_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    journal = Journal(tmp_path)
    append(journal, b"before")

    def fail(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, call, fail)
        with pytest.raises(OSError, match="No space"):
            append(journal, b"lost")
    append(journal, b"after")

    assert bodies_of(journal) == [b"before", b"after"]
    again = Journal(tmp_path)
    assert bodies_of(again) == [b"before", b"after"]
    assert (again.aside_count, again.missing_count) == (0, 0)


def test_a_full_disk_refuses_and_takes_nothing_half(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        return
    journal = Journal(tmp_path)
    append(journal, b"before")
    assert journal._file is not None
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._file)
    os.close(full)

    with pytest.raises(OSError, match="No space"):
        append(journal, b"lost")
    append(journal, b"after")

    assert bodies_of(Journal(tmp_path)) == [b"before", b"after"]


def test_two_journals_in_one_directory_are_refused(tmp_path: Path) -> None:
    append(Journal(tmp_path / "one"), b"1")
    append(Journal(tmp_path / "two"), b"2")
    (path,) = (tmp_path / "two").glob("*.journal")
    path.rename(tmp_path / "one" / path.name)

    with pytest.raises(JournalNotValid, match="those of"):
        Journal(tmp_path / "one")


def test_a_directory_has_one_process(tmp_path: Path) -> None:
    with held_directory(tmp_path), pytest.raises(JournalNotValid, match="Another process"):
        with held_directory(tmp_path):
            pass
    with held_directory(tmp_path):
        pass
