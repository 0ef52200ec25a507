"""`shoptrail export`: a store's events as files, page by page, and on from where it broke off."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from typing import Any, Protocol

from cli.failures import CommandFailed, ExitCode
from cli.gateway import Gateway, path_of
from cli.terminal import Terminal

_PAGE_EVENTS = 20_000
_STANDARD_OUTPUT = "-"
_OWNER_ONLY = 0o600


@dataclass(frozen=True, slots=True)
class _Progress:
    """How far an export is."""

    token: str = ""
    """Of the next page."""
    page_count: int = 0
    byte_count: int = 0
    """Of what is written, where it is one file."""


class _Destination(Protocol):
    """Where pages go."""

    def begin(self) -> _Progress:
        """How far it was before; nothing if it begins."""

    def add(self, content: bytes, progress: _Progress) -> None:
        """Keep a page, with which the progress is reached."""

    def end(self) -> None:
        """Say that there are no more."""


def add_to(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.set_defaults(demo_key="secret_key", run=_export)
    parser.add_argument("store")
    parser.add_argument(
        "path", help="the file; - for standard output; of Parquet a directory, for a file a page"
    )
    parser.add_argument("--format", choices=("ndjson", "csv", "parquet"), default="ndjson")
    parser.add_argument("--start", default="", metavar="TIME", help="such as 2027-01-31T12:00:00Z")
    parser.add_argument("--end", default="", metavar="TIME", help="not included")
    parser.add_argument("--name", default="", help="only events of this name")
    parser.add_argument("--page-size", type=int, default=_PAGE_EVENTS, help="events at once")


def _export(
    arguments: argparse.Namespace, open_gateway: Callable[[], Gateway], terminal: Terminal
) -> ExitCode:
    asked = {
        "format": arguments.format.upper(),
        "page_size": arguments.page_size,
        **{
            name: given
            for name, given in (
                ("start_time", arguments.start),
                ("end_time", arguments.end),
                ("name", arguments.name),
            )
            if given
        },
    }
    gateway = open_gateway()
    path = path_of("stores", arguments.store, "events:export")
    try:
        destination = _destination_of(arguments, {"path": path, **asked})
        count = 0
        for content, headers, progress in _pages(gateway, path, asked, destination.begin()):
            destination.add(content, progress)
            count = int(headers.get("Exported-Count", 0))
            terminal.report(f"{count} of {headers.get('Total-Count', '?')} events")
        destination.end()
        terminal.end_report()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandFailed(str(error), ExitCode.USAGE) from error
    if arguments.path != _STANDARD_OUTPUT:
        terminal.show({"path": arguments.path, "event_count": count})
    return ExitCode.DONE


def _pages(
    gateway: Gateway, path: str, asked: Mapping[str, Any], progress: _Progress
) -> Iterator[tuple[bytes, Message, _Progress]]:
    """The pages that follow, what is said of each, and how far it goes."""
    while True:
        content, headers = gateway.download(
            path, parameters={**asked, "page_token": progress.token}
        )
        progress = _Progress(
            headers.get("Next-Page-Token", ""),
            progress.page_count + 1,
            progress.byte_count + len(content),
        )
        yield content, headers, progress
        if not progress.token:
            return


def _destination_of(arguments: argparse.Namespace, question: Mapping[str, Any]) -> _Destination:
    in_parts = arguments.format == "parquet"
    if arguments.path == _STANDARD_OUTPUT:
        if in_parts:
            raise CommandFailed("Parquet goes into a directory.", ExitCode.USAGE)
        return _StandardOutput()
    path = Path(arguments.path)
    return _Directory(path, question) if in_parts else _File(path, question)


class _StandardOutput:
    """Pages one after the other, which can't go on once it broke off."""

    def begin(self) -> _Progress:
        return _Progress()

    def add(self, content: bytes, progress: _Progress) -> None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()

    def end(self) -> None:
        pass


class _File:
    """Pages in one file, which gets its name when it is whole."""

    def __init__(self, path: Path, question: Mapping[str, Any]) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._notes = _Notes(path.with_name(f"{path.name}.progress"), question)

    def begin(self) -> _Progress:
        progress = self._notes.read()
        if progress.page_count == 0:
            self._part.unlink(missing_ok=True)
            self._part.touch(_OWNER_ONLY)
        else:
            # What was written of the page in which it broke off comes again.
            with self._part.open("r+b") as file:
                file.truncate(progress.byte_count)
        return progress

    def add(self, content: bytes, progress: _Progress) -> None:
        with self._part.open("ab") as file:
            file.write(content)
        self._notes.write(progress)

    def end(self) -> None:
        self._part.replace(self._path)
        self._notes.remove()


class _Directory:
    """A file for each page."""

    def __init__(self, path: Path, question: Mapping[str, Any]) -> None:
        self._path = path
        self._notes = _Notes(path / "export.progress", question)

    def begin(self) -> _Progress:
        self._path.mkdir(exist_ok=True)
        progress = self._notes.read()
        if progress.page_count == 0 and any(self._path.glob("events-*.parquet")):
            # Files of another export would pass for parts of this one.
            raise CommandFailed(f"{self._path} has an export already.", ExitCode.USAGE)
        return progress

    def add(self, content: bytes, progress: _Progress) -> None:
        name = self._path / f"events-{progress.page_count:05}.parquet"
        part = name.with_suffix(".part")
        part.unlink(missing_ok=True)
        part.touch(_OWNER_ONLY)
        part.write_bytes(content)
        # Noted before it has its name, an unfinished page would be taken for a whole one.
        part.replace(name)
        self._notes.write(progress)

    def end(self) -> None:
        self._notes.remove()


class _Notes:
    """A file that says how far an export is, and of what."""

    def __init__(self, path: Path, question: Mapping[str, Any]) -> None:
        self._path = path
        self._question = dict(question)

    def read(self) -> _Progress:
        """How far it is; raises `CommandFailed` if it is an export of something else."""
        try:
            noted = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return _Progress()
        except ValueError:
            noted = None
        if not isinstance(noted, dict) or noted.get("question") != self._question:
            raise CommandFailed(
                f"{self._path} is of another export. Ask for the same, or remove it.",
                ExitCode.USAGE,
            )
        return _Progress(**noted["progress"])

    def write(self, progress: _Progress) -> None:
        fresh = self._path.with_name(f"{self._path.name}.fresh")
        fresh.touch(_OWNER_ONLY)
        noted = {"question": self._question, "progress": asdict(progress)}
        fresh.write_text(json.dumps(noted))
        fresh.replace(self._path)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
