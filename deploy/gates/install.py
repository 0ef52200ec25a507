"""Stands in for pip while the image is built here, without a network.

Takes from this checkout's environment, which make installed by the same hashes, exactly what the
requirements file lists; fails if a version is another.
"""

from __future__ import annotations

import argparse
import re
import shutil
from importlib import metadata
from pathlib import Path

_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", flags=re.M)


def main() -> None:
    """Do what the arguments of `pip install --target … -r …` say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("-r", dest="requirements", type=Path, required=True)
    arguments, others = parser.parse_known_args()
    if "--require-hashes" not in others:
        raise SystemExit("packages must be installed by hash")
    for name, version in _PINNED.findall(arguments.requirements.read_text()):
        distribution = metadata.distribution(name)
        if distribution.version != version:
            raise SystemExit(f"{name} is {distribution.version} here, and not {version}")
        for file in distribution.files or ():
            source = Path(str(file.locate()))
            if ".." in file.parts or not source.is_file():
                continue  # Programs, which lie beside the packages.
            target = arguments.target / file
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copy2(source, target)


if __name__ == "__main__":
    main()
