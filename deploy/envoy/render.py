"""Writes the files of all proxies in YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from deploy.calls import EDGE
from deploy.envoy.edge import edge_bootstrap
from deploy.envoy.parts import secret_files
from deploy.envoy.settings import ENVIRONMENTS, Environment
from deploy.envoy.sidecar import all_sidecars

_DEPLOY = Path(__file__).parents[1]
# kustomize reads nothing from outside an overlay's own directory.
DIRECTORIES = {
    "compose": _DEPLOY / "envoy" / "rendered" / "compose",
    "staging": _DEPLOY / "k8s" / "overlays" / "staging" / "envoy",
    "production": _DEPLOY / "k8s" / "overlays" / "production" / "envoy",
    "aws": _DEPLOY / "k8s" / "overlays" / "aws" / "envoy",
}
HEAD = "# Written by `make render` from deploy/ and the rules in protos/.\n"


class _Plain(yaml.SafeDumper):
    """Without anchors: a file is read from top to bottom."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def to_yaml(*documents: Any) -> str:
    """The documents as YAML, their keys in the given sequence."""
    return yaml.dump_all(
        documents,
        Dumper=_Plain,
        sort_keys=False,
        width=100,
        allow_unicode=True,
        explicit_start=len(documents) > 1,
    )


def render(environment: Environment) -> dict[str, str]:
    """What each file of the environment holds: one for each proxy, and where secrets are."""
    configs = {
        f"{EDGE}.yaml": edge_bootstrap(environment),
        **{f"{name}.yaml": config for name, config in all_sidecars(environment).items()},
        **secret_files(environment),
    }
    return {name: HEAD + to_yaml(config) for name, config in configs.items()}


def files() -> dict[Path, str]:
    """The files of all environments."""
    return {
        DIRECTORIES[environment.name] / name: text
        for environment in ENVIRONMENTS.values()
        for name, text in render(environment).items()
    }
