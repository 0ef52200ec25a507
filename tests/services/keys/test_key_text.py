"""The text of a key notices mistyping, and its hint gives little away."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.keys.key_text import Kind, hint_of, is_key_text, new_key_text

key_texts = st.builds(new_key_text, st.sampled_from(Kind), test=st.booleans())
places = st.integers(min_value=0, max_value=45)


@given(key_texts)
def test_a_new_text_is_the_text_of_a_key(text: str) -> None:
    assert is_key_text(text)


@given(key_texts, places, st.characters(codec="utf-8"))
def test_one_mistyped_letter_is_always_noticed(text: str, place: int, letter: str) -> None:
    mistyped = text[:place] + letter + text[place + 1 :]

    assert is_key_text(mistyped) == (mistyped == text)


@given(key_texts, places, st.sampled_from(string.ascii_letters + string.digits))
def test_one_letter_mistaken_for_another_is_always_noticed(
    text: str, place: int, letter: str
) -> None:
    mistyped = text[:place] + letter + text[place + 1 :]

    assert is_key_text(mistyped) == (mistyped == text)


@given(key_texts, st.integers(min_value=0, max_value=44))
def test_two_swapped_letters_are_always_noticed(text: str, place: int) -> None:
    swapped = text[:place] + text[place + 1] + text[place] + text[place + 2 :]

    assert is_key_text(swapped) == (swapped == text)


@given(st.text())
def test_any_other_text_is_no_key(text: str) -> None:
    assert not is_key_text(text)


@pytest.mark.parametrize(
    ("kind", "test", "prefix"),
    [
        (Kind.PUBLISHABLE, False, "pk_live_"),
        (Kind.SECRET, True, "sk_test_"),
        (Kind.CRON, False, "ck_live_"),
    ],
)
def test_the_text_begins_with_what_the_key_is_for(kind: Kind, test: bool, prefix: str) -> None:
    text = new_key_text(kind, test=test)

    assert text.startswith(prefix)
    assert len(text) == len(prefix) + 32 + 6


def test_the_hint_shows_the_prefix_and_four_letters_of_each_end() -> None:
    text = new_key_text(Kind.SECRET, test=False)

    assert hint_of(text) == f"sk_live_{text[8:12]}…{text[-4:]}"


def test_no_two_texts_are_the_same() -> None:
    assert len({new_key_text(Kind.SECRET, test=False) for _ in range(1000)}) == 1000
