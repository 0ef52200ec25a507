"""Runs the command line: `python -m cli`, or `bin/shoptrail`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cli.commands import build_parser
from cli.failures import CommandFailed, ExitCode
from cli.gateway import Gateway
from cli.terminal import Terminal

_MESH = Path(".run/mesh.json")


def main(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Do what the words say; returns the exit code.

    The gateway is `--url`, else `SHOPTRAIL_URL`; the key is `SHOPTRAIL_KEY`, and never an
    argument, which other users of the machine could read. What is not given is the demo's
    of the mesh that `make run` started here.
    """
    arguments = build_parser().parse_args(words)
    terminal = Terminal(sys.stdout, as_json=arguments.json, aside=sys.stderr)

    def open_gateway() -> Gateway:
        url = arguments.url or environment.get("SHOPTRAIL_URL")
        key = environment.get("SHOPTRAIL_KEY")
        if not (url and key):
            # A key of the demo goes to the demo's gateway only.
            mesh = _read_mesh() if not url else {}
            url = url or mesh.get("gateway", "")
            key = key or mesh.get(arguments.demo_key, "")
        if not url:
            raise CommandFailed(
                "No gateway: give --url or SHOPTRAIL_URL, or start one with `make run`.",
                ExitCode.USAGE,
            )
        if not key:
            raise CommandFailed("No key: set SHOPTRAIL_KEY.", ExitCode.REFUSED)
        return Gateway(url, key)

    try:
        return int(arguments.run(arguments, open_gateway, terminal))
    except CommandFailed as failure:
        sys.stderr.write(f"shoptrail: {failure}\n")
        return int(failure.exit_code)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # As in `shoptrail … | head`.
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - so that the exit says no more
        return 0


def _read_mesh() -> Mapping[str, str]:
    """Where the mesh is that runs here, and its demo's keys; empty if none runs."""
    try:
        mesh = json.loads(_MESH.read_bytes())
        demo = json.loads((_MESH.parent / mesh["database"] / "demo.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return {**demo, **mesh}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
