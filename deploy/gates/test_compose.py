"""What Compose tells processes is what they read; Redis and MySQL take what it tells them."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings

from common.config import read_config
from common.cron.call import CallConfig
from deploy.calls import EDGE, PROCESSES, SERVICES
from deploy.docker.certificates import IDENTITIES
from deploy.docker.secrets import make_secrets
from deploy.envoy.render import render
from deploy.envoy.settings import ENVIRONMENTS
from deploy.local import environment
from deploy.local.ports import reserved
from deploy.local.redis import server_binary
from gateway.config import GatewayConfig
from services.ingest.config import IngestConfig
from services.keys.config import KeysConfig
from services.maintenance.config import MaintenanceConfig
from services.query.config import QueryConfig

DIRECTORY = Path(__file__).parents[1] / "docker"
CONFIGS: dict[str, type[BaseSettings]] = {
    "gateway": GatewayConfig,
    "ingest": IngestConfig,
    "query": QueryConfig,
    "keys": KeysConfig,
    "maintenance": MaintenanceConfig,
    "clock": CallConfig,
}
Compose = dict[str, Any]


@pytest.fixture
def compose() -> Compose:
    """The file, with secrets filled in as Compose does."""
    made = make_secrets()

    def fill(found: re.Match[str]) -> str:
        name, _, default = found[1].partition(":-")
        return made[name.removesuffix(":?")] if name.endswith(":?") else default

    text = re.sub(r"(?<!\$)\$\{([^}]+)\}", fill, (DIRECTORY / "compose.yaml").read_text())
    compose: Compose = yaml.safe_load(text)
    return compose


def check(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises `SystemExit` or `AssertionError` if a process would not start."""
    for name, config in CONFIGS.items():
        variables = compose["services"][name]["environment"]
        prefix = config.model_config.get("env_prefix", "")
        for variable, value in variables.items():
            assert variable.removeprefix(prefix).lower() in config.model_fields, variable
            monkeypatch.setenv(variable, value)
        read_config(config)
    for name, service in compose["services"].items():
        for needed in service.get("depends_on", {}):
            assert needed in compose["services"], needed
        command = service.get("command", [])
        if service["image"].startswith("envoyproxy/"):
            process = name.removesuffix("-proxy")
            assert command[:2] == ["-c", f"/etc/envoy/{process}.yaml"]
            assert process == EDGE or service["network_mode"] == f"service:{process}"
        for volume in service.get("volumes", []):
            if isinstance(volume, dict):
                assert volume["volume"]["subpath"] in IDENTITIES
        if service["image"] == "shoptrail" or service["image"].startswith("envoyproxy/"):
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["user"] == "65532:65532"


def test_every_process_and_proxy_is_there_and_is_told_what_it_reads(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(compose, monkeypatch)

    assert {*PROCESSES, *(f"{name}-proxy" for name in PROCESSES), EDGE} <= set(compose["services"])
    assert f"{EDGE}.yaml" in render(ENVIRONMENTS["compose"])
    assert {*environment.IDENTITIES, EDGE} == set(IDENTITIES)


def forget(compose: Compose) -> None:
    del compose["services"]["query"]["environment"]["QUERY_REDIS_URL"]


def misspell(compose: Compose) -> None:
    compose["services"]["gateway"]["environment"]["GATEWAY_TRUSTED_PROXY"] = "127.0.0.1/32"


def mix_up(compose: Compose) -> None:
    compose["services"]["keys-proxy"]["network_mode"] = "service:ingest"


def soften(compose: Compose) -> None:
    compose["services"]["ingest"]["cap_drop"] = []


@pytest.mark.parametrize("spoil", [forget, misspell, mix_up, soften])
def test_a_planted_fault_is_found(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Compose], None]
) -> None:
    spoil(compose)

    with pytest.raises((SystemExit, AssertionError)):
        check(compose, monkeypatch)


async def test_redis_takes_its_users_from_the_command_line(
    compose: Compose, tmp_path: Path
) -> None:
    _, *arguments = compose["services"]["redis"]["command"]
    with reserved(1) as (port,):
        server = await asyncio.create_subprocess_exec(
            server_binary(),
            *(*arguments, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            url = compose["services"]["keys"]["environment"]["KEYS_REDIS_URL"]
            password = url.partition("keys:")[2].partition("@")[0]
            async with asyncio.timeout(20):
                while True:
                    try:
                        reader, writer = await asyncio.open_connection("127.0.0.1", port)
                        break
                    except OSError:
                        assert server.returncode is None, await server.communicate()
                        await asyncio.sleep(0.05)
            answers = []
            for command in (
                "GET keys:a",
                f"AUTH keys {password}",
                "SET keys:a 1",
                "GET ingest:a",
                "FLUSHALL",
            ):
                writer.write(f"{command}\r\n".encode())
                answers.append((await reader.readline()).decode().split()[0])
            writer.close()
        finally:
            server.terminate()
            await server.communicate()

    assert answers == ["-NOAUTH", "+OK", "+OK", "-NOPERM", "-NOPERM"]


def test_accounts_are_made_of_the_template_that_is_used_everywhere(tmp_path: Path) -> None:
    shim = tmp_path / "mysql"
    shim.write_text(f'#!/bin/bash\ncat >> "{tmp_path}/sql"\n')
    shim.chmod(0o755)
    template = DIRECTORY.parent / "mysql" / "accounts.sql"
    script = (DIRECTORY / "accounts.sh").read_text().replace("/accounts.sql", str(template))
    variables = {"MYSQL_ROOT_PASSWORD": "root", "PATH": f"{tmp_path}:/usr/bin:/bin"}
    for service in SERVICES:
        variables[f"{service.upper()}_PASSWORD"] = f"{service}1"
        variables[f"{service.upper()}_MIGRATION_PASSWORD"] = f"{service}2"

    subprocess.run(["bash", "-c", script], env=variables, check=True)

    expected = "".join(
        Template(template.read_text())
        .substitute(
            service=service,
            client_host="%",
            password=f"{service}1",
            migration_password=f"{service}2",
        )
        .rstrip("\n")
        + "\n"
        for service in ("ingest", "query", "keys", "maintenance")
    )
    assert (tmp_path / "sql").read_text() == expected


def test_shellcheck_finds_a_planted_fault_and_nothing_in_ours(tmp_path: Path) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    checkout = DIRECTORY.parents[1]
    planted = tmp_path / "planted.sh"
    planted.write_text("#!/bin/bash\nrm -rf $HOME/$1\n")

    pipeline = checkout / "deploy" / "pipeline" / "roll_out.sh"
    on_aws = checkout / "deploy" / "aws" / "accounts.sh"
    ours = [DIRECTORY / "accounts.sh", on_aws, pipeline, checkout / ".ci" / "run"]
    assert subprocess.run([shellcheck, *ours], check=False).returncode == 0
    assert subprocess.run([shellcheck, planted], check=False).returncode != 0
