"""Writes answers: as aligned columns for people, or as JSON for scripts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


class Terminal:
    """Where a command's answer goes."""

    def __init__(self, output: TextIO, *, as_json: bool, aside: TextIO | None = None) -> None:
        self._output = output
        self._aside = aside
        self._is_line_open = False
        self.as_json = as_json
        self._is_rich = output.isatty() and not as_json

    def show_rows(self, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
        """A table of these columns; as JSON, a line for each row with all that it has."""
        if self.as_json:
            for row in rows:
                self._write_json(row)
            return
        cells = [[_as_text(row.get(column, "")) for column in columns] for row in rows]
        if not cells:
            self.say("Nothing.")
            return
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        self._write_line(columns, widths, is_head=True)
        for line in cells:
            self._write_line(line, widths)
        self._output.flush()

    def show(self, answer: Mapping[str, Any]) -> None:
        """Everything in an answer, a line a field; as JSON, the answer."""
        if self.as_json:
            self._write_json(answer)
            return
        width = max(map(len, answer), default=0)
        for name, value in answer.items():
            label = f"{name:<{width}}"
            bold = f"{_BOLD}{label}{_PLAIN}" if self._is_rich else label
            self._output.write(f"{bold}  {_as_text(value)}\n")
        self._output.flush()

    def say(self, sentence: str) -> None:
        """A sentence for people; nothing in JSON."""
        if not self.as_json:
            self._output.write(f"{sentence}\n")
            self._output.flush()

    def report(self, progress: str) -> None:
        """Say aside how far it is: over what was said before, where that can be done."""
        if self._aside is None or self.as_json:
            return
        if self._aside.isatty():
            self._aside.write(f"\r{progress}\x1b[K")
            self._is_line_open = True
        else:
            self._aside.write(f"{progress}\n")
        self._aside.flush()

    def end_report(self) -> None:
        """Leave what was said of the progress as it stands, and go on below it."""
        if self._aside is not None and self._is_line_open:
            self._aside.write("\n")
            self._aside.flush()
            self._is_line_open = False

    def _write_json(self, value: Mapping[str, Any]) -> None:
        self._output.write(json.dumps(value, ensure_ascii=False) + "\n")
        self._output.flush()

    def _write_line(
        self, cells: Sequence[str], widths: Sequence[int], *, is_head: bool = False
    ) -> None:
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
        line = line.rstrip()
        if is_head and self._is_rich:
            line = f"{_BOLD}{line}{_PLAIN}"
        self._output.write(line + "\n")


def _as_text(value: Any) -> str:
    """The value on one line. What a sender wrote may hold anything, also a terminal's controls."""
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, list):
        text = " ".join(map(str, value))
    elif isinstance(value, dict):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = str(value)
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
