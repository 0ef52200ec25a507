"""Peppers are read strictly, and never shown."""

from __future__ import annotations

import pytest

from common.config import read_config
from services.keys.config import KeysConfig
from services.keys.peppers import Pepper, read_peppers

FIRST, SECOND = "ab" * 32, "cd" * 32


def test_the_first_pepper_is_the_current_one() -> None:
    peppers = read_peppers(f"2:{SECOND},1:{FIRST}")

    assert peppers == (Pepper(2, bytes.fromhex(SECOND)), Pepper(1, bytes.fromhex(FIRST)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        FIRST,
        f":{FIRST}",
        f"0:{FIRST}",
        f"one:{FIRST}",
        f"1:{FIRST[:-2]}",
        f"1:{FIRST}00",
        f"1:{FIRST[:-1]}g",
        f"1:{FIRST},",
        f"1:{FIRST},1:{SECOND}",
    ],
)
def test_malformed_peppers_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_peppers(text)

    assert FIRST[:8] not in str(caught.value)


def test_a_pepper_does_not_show_its_secret() -> None:
    assert FIRST[:8] not in repr(read_peppers(f"1:{FIRST}"))


def test_a_malformed_pepper_stops_the_process_together_with_what_else_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEYS_PEPPERS", f"1:{FIRST}0")

    with pytest.raises(SystemExit) as caught:
        read_config(KeysConfig)

    message = str(caught.value)
    assert "KEYS_PEPPERS: " in message
    assert "KEYS_DATABASE_URL: " in message
    assert FIRST[:8] not in message


def test_peppers_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TLS_CERTIFICATE", "TLS_KEY", "TLS_AUTHORITY", "LISTEN_ADDRESS"):
        monkeypatch.setenv(f"KEYS_{name}", "anything")
    for name in ("METRICS_ADDRESS", "DATABASE_URL", "REDIS_URL"):
        monkeypatch.setenv(f"KEYS_{name}", "anything")
    monkeypatch.setenv("KEYS_PAGE_TOKEN_KEY", FIRST)
    monkeypatch.setenv("KEYS_PEPPERS", f"2:{SECOND},1:{FIRST}")

    assert [pepper.version for pepper in read_config(KeysConfig).peppers] == [2, 1]
