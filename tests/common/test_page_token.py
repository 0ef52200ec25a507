"""Page tokens hold for the call that they were made for, and show nothing."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import PageTokenNotValid
from common.page_token import PageTokens
from shoptrail.keys.v1 import keys_pb2
from shoptrail.maintenance.v1 import maintenance_pb2

TOKENS = PageTokens(os.urandom(32))


def listing(**fields: object) -> maintenance_pb2.ListRunsRequest:
    return maintenance_pb2.ListRunsRequest(**fields)  # type: ignore[arg-type]  # as given


def test_a_token_opens_for_the_same_call_with_any_page_size() -> None:
    token = TOKENS.seal(listing(job="trim-runs", page_size=10), ["2026-11-22", 17])

    opened = TOKENS.open(listing(job="trim-runs", page_size=500, page_token=token))

    assert opened == ["2026-11-22", 17]
    assert TOKENS.open(listing()) is None


def test_a_token_does_not_open_for_another_call() -> None:
    token = TOKENS.seal(listing(job="trim-runs"), [17])

    for other in (
        listing(page_token=token),
        listing(job="purge-deleted", page_token=token),
        keys_pb2.ListStoresRequest(page_token=token),
    ):
        with pytest.raises(PageTokenNotValid):
            TOKENS.open(other)


def test_a_token_of_another_key_does_not_open() -> None:
    token = PageTokens(os.urandom(32)).seal(listing(), [17])

    with pytest.raises(PageTokenNotValid):
        TOKENS.open(listing(page_token=token))


@given(st.integers(min_value=0, max_value=50), st.sampled_from("AZaz09-_"))
def test_an_altered_token_does_not_open(place: int, letter: str) -> None:
    token = TOKENS.seal(listing(), [17])
    altered = token[:place] + letter + token[place + 1 :]

    if altered != token:
        with pytest.raises(PageTokenNotValid):
            TOKENS.open(listing(page_token=altered))


@given(st.text(min_size=1))
def test_any_text_is_refused_without_another_error(text: str) -> None:
    with pytest.raises(PageTokenNotValid):
        TOKENS.open(listing(page_token=text))
