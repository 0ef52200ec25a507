"""What grows is found out, and what only goes up and down is not."""

from __future__ import annotations

import os
from collections.abc import Callable

from tests.drills.soak.vitals import Process, Sample, find_growth, look_at

MIB = 2**20


def samples(
    memory: Callable[[int], float] = lambda n: 100,
    *,
    files: Callable[[int], int] = lambda n: 20,
    lag: Callable[[int], float] = lambda n: 0.2,
    name: str = "query",
) -> list[Sample]:
    return [
        Sample(
            minute=n / 12,
            processes={name: Process(int(memory(n) * MIB), files(n), 10)},
            lag_events=0,
            lag_seconds=lag(n),
            events_a_second=1000,
            median_seconds=0.01,
            p99_seconds=0.05,
            refused=0,
        )
        for n in range(360)
    ]


def test_a_leak_is_found_and_a_cache_that_fills_and_is_emptied_is_not() -> None:
    assert list(find_growth(samples(lambda n: 100 + n % 60))) == []
    assert list(find_growth(samples(lambda n: 100 + n / 2))) == ["query grew from 220 to 280 MiB"]


def test_files_that_stay_open_and_figures_that_grow_old_are_found() -> None:
    (files,) = find_growth(samples(files=lambda n: 20 + n // 12))
    (lag,) = find_growth(samples(lag=lambda n: n / 60))

    assert files == "query: file_count grew from 39 to 49"
    assert lag == "figures were 3.0 s old, and then 5.0 s"


def test_a_database_may_fill_its_memory_but_not_leave_files_open() -> None:
    assert list(find_growth(samples(lambda n: 100 + n, name="MariaDB"))) == []
    assert list(find_growth(samples(files=lambda n: n, name="MariaDB")))


def test_a_process_tells_what_it_takes() -> None:
    found = look_at(os.getpid())

    assert found.memory_bytes > 10 * MIB
    assert found.file_count > 0
    assert found.socket_count <= found.file_count
