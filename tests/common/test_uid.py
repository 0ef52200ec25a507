"""Public ids keep TypeID's text form, and their order."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.uid import format_uid, is_uid, new_uid, parse_uid


def test_the_text_is_that_of_the_specification() -> None:
    known = uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057")

    assert format_uid("prefix", known.bytes) == "prefix_01h455vb4pex5vsknk084sn02q"


@given(st.binary(min_size=16, max_size=16))
def test_text_and_bytes_say_the_same(raw: bytes) -> None:
    assert parse_uid("evt", format_uid("evt", raw)) == raw


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_texts_are_in_the_order_of_the_bytes(one: bytes, other: bytes) -> None:
    assert (one < other) == (format_uid("evt", one) < format_uid("evt", other))


def test_new_ids_come_in_order_and_never_twice() -> None:
    made = [new_uid("sto") for _ in range(10_000)]

    assert len(set(made)) == len(made)
    assert [uid[:13] for uid in made] == sorted(uid[:13] for uid in made)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sto",
        "sto_",
        "01h455vb4pex5vsknk084sn02q",
        "key_01h455vb4pex5vsknk084sn02q",
        "sto_01h455vb4pex5vsknk084sn02",
        "sto_01h455vb4pex5vsknk084sn02qq",
        "sto_01H455VB4PEX5VSKNK084SN02Q",
        "sto_8zzzzzzzzzzzzzzzzzzzzzzzzz",
        "sto_01h455vb4pex5vsknk084sn02u",
        "sto_01h455vb4pex5vsknk084sn0é",
    ],
)
def test_nothing_else_is_an_id(text: str) -> None:
    assert not is_uid("sto", text)
