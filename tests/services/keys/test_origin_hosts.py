"""Which hosts a key can be bound to."""

from __future__ import annotations

import pytest

from services.keys.origins import read_hosts


@pytest.mark.parametrize(
    "host",
    [
        "*",
        "*.example",
        "https://shop.example",
        "shop.example/path",
        "a b",
        "",
        "shop..example",
        ".shop.example",
        "*.*.example.test",
        "shop.*.example",
        "shop.example:port",
        "shop.example\n",
        "x" * 64 + ".example",
        "caf\u00e9.example",
    ],
)
def test_what_is_no_host_is_refused(host: str) -> None:
    assert read_hosts(["shop.example", host]) is None


def test_hosts_are_kept_once_and_in_lower_case() -> None:
    hosts = ["Shop.Example", "*.shop.example", "shop.example", "localhost:3000"]

    assert read_hosts(hosts) == ("shop.example", "*.shop.example", "localhost:3000")


def test_a_key_is_bound_to_at_most_twenty_hosts() -> None:
    hosts = [f"shop{number}.example" for number in range(21)]

    assert read_hosts(hosts) is None
    assert read_hosts(hosts[1:]) == tuple(hosts[1:])
