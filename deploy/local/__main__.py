"""Runs the mesh in the foreground until Ctrl-C or SIGTERM."""

import argparse
import asyncio
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from common.log import start_logging
from deploy.local.mesh import DATABASES, Mesh, RunningMesh, Settings
from deploy.local.ports import PortTakenError
from deploy.local.processes import StartError

# `make` passes a signal on which its whole process group has got already.
_SAME_SIGNAL_SECONDS = 0.5


def main() -> int:
    """Run the mesh; returns the exit code."""
    settings = _read_arguments()
    start_logging("launcher", "warning")
    try:
        asyncio.run(_run(settings))
    except (StartError, PortTakenError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


async def _run(settings: Settings) -> None:
    mesh = Mesh(settings, now=lambda: datetime.now(UTC))
    loop = asyncio.get_running_loop()
    launcher = asyncio.current_task()
    told_to_stop_at: float | None = None

    def stop() -> None:
        nonlocal told_to_stop_at
        if launcher is None:
            return
        if told_to_stop_at is None:
            told_to_stop_at = loop.time()
            launcher.cancel()
        elif loop.time() - told_to_stop_at > _SAME_SIGNAL_SECONDS:
            mesh.kill()
            os._exit(1)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    try:
        _say(f"Starting the mesh on {settings.database} …")
        async with mesh.running() as running:
            _say(_welcome(running, settings))
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        _say("Stopped.")


def _read_arguments() -> Settings:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.local",
        description="Runs the whole mesh on this machine until Ctrl-C.",
    )
    parser.add_argument(
        "--port", type=int, default=8080, help="the gateway's; 0 for any that is free (8080)"
    )
    parser.add_argument(
        "--database", choices=DATABASES, default="sqlite", help="where data is kept (sqlite)"
    )
    parser.add_argument(
        "--directory", type=Path, default=Path(".run"), help="where all files are kept (.run)"
    )
    arguments = parser.parse_args()
    return Settings(
        directory=arguments.directory.resolve(), port=arguments.port, database=arguments.database
    )


def _welcome(running: RunningMesh, settings: Settings) -> str:
    url = running.gateway_url
    demo = running.demo
    return f"""
Shoptrail is up at {url}; Ctrl-C ends it.

A shop to try it in:   {url}/demo
What happens in it:    {url}, where you sign in with the store's secret key,
                       {demo.secret_key}

Send a first event:

  curl -u {demo.write_key}: {url}/v1/track -H 'Content-Type: application/json' \\
    -d '{{"event": "Product Viewed", "anonymousId": "me", "properties": {{"sku": "42"}}}}'

Read it:

  curl -u {demo.secret_key}: {url}/v1/stores/{demo.store_uid}/events

All there is to ask:   {url}/openapi.json
Keys and addresses:    {settings.announcement}
Logs of the processes: {settings.logs}
"""


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
