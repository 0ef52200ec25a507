"""Writes the archive of what is kept of a person: a ZIP file of JSON lines, with a dictionary."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import IO, Any

import msgspec

DICTIONARY: dict[str, Any] = {
    "ids.json": {
        "what": "The ids by which the person is known to the store.",
        "fields": {
            "user_ids": "The shop's own ids.",
            "anonymous_ids": "Ids of browsers and apps.",
            "emails": "E-mail addresses that were asked for.",
        },
    },
    "events.ndjson": {
        "what": "What the person did, one event a line, in the order in which it was stored.",
        "source": "Ingest, table events",
        "fields": {
            "uid": "The event's public id.",
            "message_id": "The id that the sender gave the event.",
            "type": "track, identify, page, screen, group or alias.",
            "name": "What was done, or which page was seen.",
            "user_id": "The shop's id of the person, if it was known.",
            "anonymous_id": "The browser's or app's id, if it was known.",
            "occur_time": "When it happened.",
            "receive_time": "When it arrived.",
            "payload": "The event as it was sent.",
            "enrichment": "What was worked out: browser, system, device, campaign, referrer, money,"
            " the address as far as the store keeps it, consent.",
        },
    },
    "rejected_events.ndjson": {
        "what": "Events that could not be stored, kept with the fault for a while.",
        "source": "Ingest, table rejected_events",
        "fields": {
            "user_id": "The shop's id of the person, if it could be read.",
            "anonymous_id": "The browser's or app's id, if it could be read.",
            "payload": "The event as text.",
            "original_payload": "The event as it was sent, if it has been changed since.",
            "arrival": "When and from where it came.",
        },
    },
    "sessions.ndjson": {
        "what": "Visits that were worked out from the events.",
        "source": "Query, table sessions",
        "fields": {
            "anonymous_id": "The browser or app.",
            "start_time": "When the visit began.",
            "end_time": "When it ended.",
            "hit_count": "How many events it has.",
            "page_count": "How many pages were seen.",
            "action_count": "How many things were done.",
            "entry_page": "The first page.",
            "exit_page": "The last page.",
            "campaign": "What brought the person there.",
            "referrer": "The site that led there.",
        },
    },
}

_README = """What this store keeps of the person, as of {time}.

Each .ndjson file has one JSON object a line. data-dictionary.json says what each file and
each field is. Files that would be empty are left out.
"""


class Archive:
    """A ZIP file in the making, on no disk under a name. Used as a context."""

    def __init__(self) -> None:
        self._files = ExitStack()
        self._file = self._open()
        self._rows: dict[str, IO[bytes]] = {}
        self.counts: dict[str, int] = {}

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.close()

    def add_rows(self, name: str, rows: Iterable[bytes]) -> None:
        """Add rows of a kind."""
        if name not in self._rows:
            self._rows[name] = self._open()
        for row in rows:
            self._rows[name].write(row + b"\n")
            self.counts[name] = self.counts.get(name, 0) + 1

    def finish(self, ids: dict[str, list[str]], *, time: str) -> Iterable[bytes]:
        """Write the rest; yields the file in parts of a mebibyte."""
        with zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, rows in sorted(self._rows.items()):
                rows.seek(0)
                with archive.open(f"{name}.ndjson", "w", force_zip64=True) as member:
                    while chunk := rows.read(1 << 16):
                        member.write(chunk)
            archive.writestr("ids.json", msgspec.json.format(msgspec.json.encode(ids)))
            dictionary = msgspec.json.format(msgspec.json.encode(DICTIONARY))
            archive.writestr("data-dictionary.json", dictionary)
            archive.writestr("README.txt", _README.format(time=time))
        self._file.seek(0)
        while part := self._file.read(1 << 20):
            yield part

    def _open(self) -> IO[bytes]:
        return self._files.enter_context(tempfile.TemporaryFile())
