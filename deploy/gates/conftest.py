"""Renders everything once, and builds each overlay as it would be applied."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import render

K8S = Path(__file__).parents[1] / "k8s"
OVERLAYS = ("staging", "production")
Manifest = dict[str, Any]


def kustomize(directory: Path) -> str:
    """What kubectl makes of the directory; raises `CalledProcessError` if it can't."""
    return subprocess.run(
        ["kubectl", "kustomize", str(directory)], check=True, capture_output=True, text=True
    ).stdout


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
