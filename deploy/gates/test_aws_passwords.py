"""Passwords change and nobody is shut out: the function of the template, against stand-ins of AWS.

AWS is not here. Its stand-ins do what its documentation says of the few calls that are made.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from deploy.calls import SERVICES
from deploy.gates.test_aws import of_type

CHECKOUT = Path(__file__).parents[2]
STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")
_ALTER = re.compile(
    r"ALTER USER '(\w+)'@'%' IDENTIFIED BY '(\w+)' RETAIN CURRENT PASSWORD "
    r"ATTRIBUTE '(\{\"version\": \"[\w-]+\"\})'"
)


class Absent(Exception):
    """What Secrets Manager raises for a version that there is not."""


class Aws:
    """A secret, and the user of database or cache whose password it is."""

    exceptions = SimpleNamespace(ResourceNotFoundException=Absent)

    def __init__(self) -> None:
        self.versions = {"v1": {"username": "keys", "password": "old"}}
        self.stages = {"AWSCURRENT": "v1"}
        self.valid = ["old"]
        """The passwords that the user may come with."""
        self.attribute = "{}"
        self.made = 0

    def client(self, _name: str) -> Aws:
        return self

    def get_secret_value(self, **asked: str) -> Any:
        version = asked.get("VersionId") or self.stages[asked["VersionStage"]]
        if version not in self.versions:
            raise Absent
        return {"SecretString": json.dumps(self.versions[version])}

    def get_random_password(self, **_asked: Any) -> Any:
        self.made += 1
        return {"RandomPassword": f"new{self.made}"}

    def put_secret_value(self, **told: Any) -> None:
        self.versions[told["ClientRequestToken"]] = json.loads(told["SecretString"])
        for stage in told["VersionStages"]:
            self.stages[stage] = told["ClientRequestToken"]

    def describe_secret(self, **_asked: Any) -> Any:
        stages: dict[str, list[str]] = {}
        for stage, version in self.stages.items():
            stages.setdefault(version, []).append(stage)
        return {"VersionIdsToStages": stages}

    def update_secret_version_stage(self, **told: Any) -> None:
        assert self.stages[told["VersionStage"]] == told["RemoveFromVersionId"]
        self.stages[told["VersionStage"]] = told["MoveToVersionId"]

    def execute_statement(self, sql: str, parameters: list[Any], **_where: str) -> Any:
        if sql.startswith("SELECT"):
            assert parameters == [{"name": "user", "value": {"stringValue": "keys"}}]
            version = json.loads(self.attribute).get("version", "")
            return {"records": [[{"stringValue": version}]]}
        found = _ALTER.fullmatch(sql)
        assert found, sql
        # One password is retained, the one that was the user's until now.
        self.valid = [found[2], self.valid[0]]
        self.attribute = found[3]
        return {}

    def modify_user(self, **told: Any) -> None:
        assert told["UserId"] == "shoptrail-keys"
        self.valid = list(told["AuthenticationMode"]["Passwords"])

    def describe_users(self, **_asked: str) -> Any:
        return {"Users": [{"Status": "active"}]}


@pytest.fixture(params=["database", "cache"])
def rotation(
    request: pytest.FixtureRequest, paths: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> tuple[Aws, dict[str, Any]]:
    """The function of the template, for either kind of user."""
    template = json.loads(paths["small"].read_text())
    functions = [each["Properties"] for each in of_type(template, "AWS::Lambda::Function")]
    (code,) = {each["Code"]["ZipFile"] for each in functions}
    aws = Aws()
    stand_in = ModuleType("boto3")
    stand_in.client = aws.client  # type: ignore[attr-defined]  # that is all there is to it
    monkeypatch.setitem(sys.modules, "boto3", stand_in)
    if request.param == "database":
        monkeypatch.setenv("DATABASE", "arn:database")
        monkeypatch.setenv("ADMINISTRATOR", "arn:administrator")
    program: dict[str, Any] = {}
    exec(code, program)  # noqa: S102 - what AWS will do
    return aws, program


def rotate(program: dict[str, Any], version: str, *, times: int) -> None:
    for step in STEPS:
        for _ in range(times):
            program["handler"](
                {"SecretId": "keys", "ClientRequestToken": version, "Step": step}, None
            )


@pytest.mark.parametrize("times", [1, 2])
def test_the_password_before_stays_valid_however_often_a_step_is_done(
    rotation: tuple[Aws, dict[str, Any]], times: int
) -> None:
    aws, program = rotation

    rotate(program, "v2", times=times)
    assert aws.stages["AWSCURRENT"] == "v2"
    assert aws.valid == ["new1", "old"]

    rotate(program, "v3", times=times)
    assert aws.versions[aws.stages["AWSCURRENT"]] == {"username": "keys", "password": "new2"}
    assert aws.valid == ["new2", "new1"]


def test_without_the_note_of_its_version_a_password_would_oust_the_one_in_use(
    rotation: tuple[Aws, dict[str, Any]],
) -> None:
    aws, program = rotation
    if "DATABASE" not in os.environ:
        return  # The cache is told both, so it needs none.
    program["_version_in_database"] = lambda _user: ""

    for step in STEPS[:2] * 2:
        program["handler"]({"SecretId": "keys", "ClientRequestToken": "v2", "Step": step}, None)

    assert "old" not in aws.valid


def test_accounts_are_made_of_the_template_that_is_used_everywhere(tmp_path: Path) -> None:
    said = tmp_path / "said"
    program = tmp_path / "aws"
    program.write_text(
        f'''#!/bin/bash
echo "$*" >> "{tmp_path}/arguments"
case "$1 $2" in
"cloudformation describe-stacks") echo "arn:${{8##*==}}" ;;
"secretsmanager get-secret-value") echo '{{"password": "'"${{4//\\//0}}"'"}}' ;;
"rds-data execute-statement") cat >> "{said}" ;;
esac
'''
    )
    program.chmod(0o755)

    subprocess.run(
        [CHECKOUT / "deploy" / "aws" / "accounts.sh", "shop"],
        env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        check=True,
    )

    statements = said.read_text().splitlines()
    template = (CHECKOUT / "deploy" / "mysql" / "accounts.sql").read_text()
    assert len(statements) == len(SERVICES) * template.count(";\n")
    assert "${" not in said.read_text()
    for service in SERVICES:
        for user, kind in ((service, "database"), (f"{service}_migration", "migration")):
            password = f"shoptrail0{service}0{kind}"
            assert f"ALTER USER '{user}'@'%' IDENTIFIED BY '{password}'" in statements
    # No password was among the arguments, which other processes can read.
    assert "IDENTIFIED" not in (tmp_path / "arguments").read_text()
