"""The clock, against a gateway that keeps the timetable of one job."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from deploy.local.clock import Clock
from deploy.local.gateway_client import GatewayClient

NOW = datetime(2026, 5, 1, 12, 0, 30, tzinfo=UTC)
LATEST = "2026-05-01T12:00:00Z"
NEXT = "2026-05-01T12:01:00Z"


class FakeGateway:
    """Serves the timetable of the job `sweep` of Keys, and answers its calls with `outcome`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str | None]] = []
        self.outcome = "RUN_CRON_OUTCOME_RAN"
        self.status = 200
        self.last_run: dict[str, str] | None = None

    def answer(self, method: str, path: str, authorization: str | None) -> tuple[int, Any]:
        if method == "POST":
            self.calls.append((path, authorization))
            return self.status, {"outcome": self.outcome}
        job = {"name": "sweep", "period": "60s", "next_scheduled_time": NEXT, "overdue": False}
        if self.last_run is not None:
            job["last_run"] = self.last_run
        return 200, {"jobs": [job] if path == "/v1/cron/keys/jobs" else []}


@contextmanager
def serving(gateway: FakeGateway) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = gateway.answer(self.command, self.path, self.headers["Authorization"])
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - the name is http.server's

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def clock(gateway: FakeGateway) -> Iterator[Clock]:
    with serving(gateway) as address:
        yield clock_at(address)


def clock_at(address: str) -> Clock:
    return Clock(
        GatewayClient(address), cron_key="ck_test", services=["keys", "query"], now=lambda: NOW
    )


def run_of(scheduled_time: str, state: str) -> dict[str, str]:
    return {"scheduled_time": scheduled_time, "state": state}


async def test_a_job_whose_scheduled_time_has_no_run_is_called(
    gateway: FakeGateway, clock: Clock
) -> None:
    again = await clock.call_due_jobs()

    assert gateway.calls == [("/v1/cron/keys/sweep:run", "Bearer ck_test")]
    assert again == datetime.fromisoformat(NEXT)


async def test_a_job_that_has_run_is_left_alone_until_its_next_time(
    gateway: FakeGateway, clock: Clock
) -> None:
    gateway.last_run = run_of(LATEST, "RUN_STATE_SUCCEEDED")

    again = await clock.call_due_jobs()

    assert gateway.calls == []
    assert again == datetime.fromisoformat(NEXT)


@pytest.mark.parametrize(
    "last_run",
    [
        run_of("2026-05-01T11:59:00Z", "RUN_STATE_SUCCEEDED"),
        run_of(LATEST, "RUN_STATE_RUNNING"),
        run_of(LATEST, "RUN_STATE_FAILED"),
    ],
)
async def test_a_job_that_is_behind_or_unfinished_is_called(
    gateway: FakeGateway, clock: Clock, last_run: dict[str, str]
) -> None:
    gateway.last_run = last_run

    await clock.call_due_jobs()

    assert len(gateway.calls) == 1


@pytest.mark.parametrize(
    ("status", "outcome"), [(200, "RUN_CRON_OUTCOME_CONTINUES"), (500, "RUN_CRON_OUTCOME_RAN")]
)
async def test_a_job_that_is_not_done_is_called_again_soon(
    gateway: FakeGateway, clock: Clock, status: int, outcome: str
) -> None:
    gateway.status = status
    gateway.outcome = outcome

    assert await clock.call_due_jobs() == NOW + timedelta(seconds=5)


async def test_a_gateway_that_is_away_is_asked_again_soon(gateway: FakeGateway) -> None:
    with serving(gateway) as address:
        clock = clock_at(address)

    assert await clock.call_due_jobs() == NOW + timedelta(seconds=5)
