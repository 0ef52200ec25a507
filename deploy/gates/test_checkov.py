"""checkov has nothing against the manifests but what it is told not to ask for, with reasons."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

GATES = Path(__file__).parent
CHECKOV = GATES.parents[1] / ".checkov" / "bin" / "checkov"

# It takes seconds to start, and this machine may have other things to do.
pytestmark = pytest.mark.timeout(600)


def failed_checks(path: Path, *, config: str = "checkov.yaml") -> dict[str, list[str]]:
    """The resources that failed, by check."""
    found = subprocess.run(
        [CHECKOV, "--config-file", GATES / config, "-f", path, "-o", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(found.stdout)
    failed: dict[str, list[str]] = {}
    for check in report.get("results", {}).get("failed_checks", []):
        failed.setdefault(check["check_id"], []).append(check["resource"])
    assert failed or report.get("passed", 0) or report["summary"]["passed"] > 100, found.stderr
    return failed


def test_checkov_passes_all_overlays(built_texts: Mapping[str, str], tmp_path: Path) -> None:
    path = tmp_path / "manifests.yaml"
    path.write_text("---\n".join(built_texts.values()))

    assert failed_checks(path) == {}


def test_checkov_finds_planted_faults() -> None:
    failed = failed_checks(GATES / "planted.yaml")

    expected = {
        "CKV_K8S_16": "a privileged container",
        "CKV_K8S_17": "the host's processes",
        "CKV_K8S_19": "the host's network",
        "CKV_K8S_20": "more privileges by and by",
        "CKV_K8S_22": "a root file system to write to",
        "CKV_K8S_27": "Docker's socket",
        "CKV_K8S_13": "no limit of memory",
        "CKV_K8S_8": "nobody asks whether it lives",
        "CKV_K8S_14": "whatever image is the latest",
    }
    assert not set(expected) - set(failed), set(expected) - set(failed)


@pytest.mark.parametrize(
    ("config", "skipped"),
    [
        ("checkov.yaml", "skip-check"),
        ("checkov-aws.yaml", "skip-check"),
        ("cfnlint.yaml", "ignore_checks"),
    ],
)
def test_each_skipped_check_has_its_reason(config: str, skipped: str) -> None:
    text = (GATES / config).read_text()
    lines = text.splitlines()
    for check in yaml.safe_load(text)[skipped]:
        number = next(n for n, line in enumerate(lines) if line.strip() == f"- {check}")
        assert lines[number - 1].strip().startswith("# ")
