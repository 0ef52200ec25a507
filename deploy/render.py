"""Writes all files of the deployment that follow from the source: `make render`."""

from __future__ import annotations

import sys

from deploy.envoy import render as envoy
from deploy.k8s import render as k8s
from deploy.observability import dashboards
from deploy.vitess import vschema


def main() -> None:
    """Write the files."""
    files = {**envoy.files(), **k8s.files(), **dashboards.files(), **vschema.files()}
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    sys.stdout.write(f"{len(files)} files are up to date.\n")


if __name__ == "__main__":
    main()
