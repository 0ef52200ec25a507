"""What calls jobs: a CronJob's pod, and the clock of a single server."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from common.cron.call import CallConfig, Exit, call_due_jobs, call_job
from common.errors import DependencyUnavailable, InternalError, NotFound
from shoptrail.maintenance.v1 import job_pb2, maintenance_pb2, maintenance_pb2_grpc
from tests.conftest import Serving
from tests.gateway.conftest import MAINTENANCE, FakeService

RAN = maintenance_pb2.RUN_CRON_OUTCOME_RAN
ALREADY_RAN = maintenance_pb2.RUN_CRON_OUTCOME_ALREADY_RAN
ALREADY_RUNNING = maintenance_pb2.RUN_CRON_OUTCOME_ALREADY_RUNNING
CONTINUES = maintenance_pb2.RUN_CRON_OUTCOME_CONTINUES
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


@dataclass
class Scene:
    """A service whose answers to `RunCron` come from a list; the last one stays."""

    fake: FakeService
    stub: maintenance_pb2_grpc.MaintenanceAsyncStub
    address: str
    answers: list[Any] = field(default_factory=list)

    async def run_cron(self, request: Any) -> maintenance_pb2.RunCronResponse:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return maintenance_pb2.RunCronResponse(outcome=answer)


@pytest.fixture
async def scene(serving: Serving) -> AsyncIterator[Scene]:
    fake = FakeService(MAINTENANCE)
    async with serving([MAINTENANCE], fake.add_to) as connect:
        scene = Scene(fake, maintenance_pb2_grpc.MaintenanceStub(connect("cron")), connect.address)
        fake.answers["RunCron"] = scene.run_cron
        yield scene


@pytest.fixture
def configure(scratch: Path, certificates: object) -> Callable[..., CallConfig]:
    def configure(**variables: Any) -> CallConfig:
        tls = scratch / "tls"
        return CallConfig(
            tls_certificate=tls / "cron.pem",
            tls_key=tls / "cron.key",
            tls_authority=tls / "authority.pem",
            **{"seconds": 5.0, "pause_seconds": 0.01, **variables},
        )

    return configure


@pytest.mark.parametrize("answers", [[RAN], [ALREADY_RAN], [CONTINUES, ALREADY_RUNNING, RAN]])
async def test_a_job_is_called_until_it_is_done_for_the_minute_in_the_name_of_its_kubernetes_job(
    scene: Scene, configure: Callable[..., CallConfig], answers: list[Any]
) -> None:
    scene.answers = list(answers)

    done = await call_job(scene.stub, "trim", configure(job_name="ingest-trim-runs-29401320"))

    assert done is Exit.DONE
    requests = scene.fake.requests("RunCron")
    assert [request.scheduled_minute for request in requests] == [29401320] * len(answers)


async def test_a_service_that_is_away_is_called_again(
    scene: Scene, configure: Callable[..., CallConfig]
) -> None:
    scene.answers = [DependencyUnavailable()] * 4 + [RAN]

    assert await call_job(scene.stub, "trim", configure()) is Exit.DONE


@pytest.mark.parametrize(
    ("answer", "config", "expected"),
    [
        (NotFound("There is no such job.", {}), {}, Exit.WRONG),
        (RAN, {"job_name": "by-hand"}, Exit.WRONG),
        (InternalError(), {}, Exit.FAILED),
        (ALREADY_RUNNING, {"seconds": 0.2}, Exit.NOT_DONE),
    ],
)
async def test_what_a_pod_ends_with_says_whether_to_call_again(
    scene: Scene,
    configure: Callable[..., CallConfig],
    answer: Any,
    config: dict[str, Any],
    expected: Exit,
) -> None:
    scene.answers = [answer]

    assert await call_job(scene.stub, "trim", configure(**config)) is expected


async def test_the_clock_calls_what_is_due_and_nothing_else(scene: Scene) -> None:
    scene.answers = [RAN]

    async def list_jobs(request: Any) -> maintenance_pb2.ListJobsResponse:
        listed = maintenance_pb2.ListJobsResponse()
        for name, state, hours_ago in (
            ("never-ran", job_pb2.RUN_STATE_UNSPECIFIED, 0),
            ("done", job_pb2.RUN_STATE_SUCCEEDED, 1),
            ("done-before", job_pb2.RUN_STATE_SUCCEEDED, 2),
            ("failed", job_pb2.RUN_STATE_FAILED, 1),
        ):
            job = listed.jobs.add(name=name)
            job.period.FromTimedelta(timedelta(hours=1))
            job.next_scheduled_time.FromDatetime(NOON)
            if state:
                job.last_run.state = state
                job.last_run.scheduled_time.FromDatetime(NOON - timedelta(hours=hours_ago))
        return listed

    scene.fake.answers["ListJobs"] = list_jobs

    await call_due_jobs(scene.stub)

    called = [request.job for request in scene.fake.requests("RunCron")]
    assert called == ["never-ran", "done-before", "failed"]


async def test_the_program_ends_with_the_code(
    scene: Scene, configure: Callable[..., CallConfig]
) -> None:
    config = configure()
    scene.answers = [RAN]
    environment = {
        "CRON_ADDRESS": scene.address.replace("127.0.0.1", "localhost"),
        "CRON_TLS_CERTIFICATE": str(config.tls_certificate),
        "CRON_TLS_KEY": str(config.tls_key),
        "CRON_TLS_AUTHORITY": str(config.tls_authority),
    }

    async def run(*arguments: str) -> int | None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "common.cron.call", *arguments),
            env={**os.environ, **environment},
        )
        return await process.wait()

    # The scene's server shows Ingest's certificate.
    assert await run("run", "ingest", "trim-runs") == 0
    scene.answers = [NotFound("There is no such job.", {})]
    assert await run("run", "ingest", "no-such-job") == os.EX_USAGE
    assert {call.identity for _, _, call in scene.fake.calls} == {"cron"}
