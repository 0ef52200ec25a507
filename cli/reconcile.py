"""`shoptrail reconcile`: the shop's own list of paid orders against what events told of."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli.failures import CommandFailed, ExitCode
from cli.gateway import Gateway, path_of
from cli.terminal import Terminal

_PAGE_DIFFERENCES = 5000
_COLUMNS = ("order_id", "difference", "listed", "told", "payment_method", "browser", "consent")
_SUMS = ("total", "money", "by_payment_method", "by_browser", "by_consent")
_DIFFERING = ("missing_count", "extra_count", "doubled_count", "wrong_amount_count")


def add_to(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.set_defaults(demo_key="secret_key", run=_reconcile)
    parser.add_argument("store")
    parser.add_argument("path", type=Path, help="all orders that were paid for in the range")
    parser.add_argument(
        "--format", choices=("csv", "ndjson"), help="else by the file's name: CSV if it ends so"
    )
    parser.add_argument("--start", default="", metavar="TIME", help="else 30 days before the end")
    parser.add_argument("--end", default="", metavar="TIME", help="not included; else now")
    parser.add_argument("--trust", choices=("claimed", "confirmed"))


def _reconcile(
    arguments: argparse.Namespace, open_gateway: Callable[[], Gateway], terminal: Terminal
) -> ExitCode:
    by_name = "csv" if arguments.path.suffix.lower() == ".csv" else "ndjson"
    body: dict[str, Any] = {
        "format": (arguments.format or by_name).upper(),
        "content": _read(arguments.path),
        "page_size": _PAGE_DIFFERENCES,
    }
    for name, given in (("start_time", arguments.start), ("end_time", arguments.end)):
        if given:
            body[name] = given
    if arguments.trust:
        body["trust"] = arguments.trust.upper()
    gateway = open_gateway()
    path = path_of("stores", arguments.store, "orders:reconcile")
    answer = gateway.call("POST", path, body=body)
    differences = list(answer.get("differences", []))
    sums = {name: answer[name] for name in _SUMS if name in answer}
    while token := answer.get("next_page_token"):
        terminal.report(f"{len(differences)} differences so far")
        answer = gateway.call("POST", path, body={**body, "page_token": token})
        differences += answer.get("differences", [])
    terminal.end_report()
    if terminal.as_json:
        terminal.show_rows(differences, _COLUMNS)
        terminal.show(sums)
    else:
        terminal.show_rows([_for_people(one) for one in differences], _COLUMNS)
        terminal.show(sums["total"])
    differ = any(int(sums["total"].get(count, 0)) for count in _DIFFERING)
    return ExitCode.FOUND if differ else ExitCode.DONE


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{path} can't be read: {error}", ExitCode.USAGE) from error


def _for_people(difference: dict[str, Any]) -> dict[str, Any]:
    """The difference with its kind and its amounts as people write them."""
    kind = str(difference["kind"]).removeprefix("ORDER_DIFFERENCE_KIND_")
    amounts: dict[str, Any] = {
        side: f"{difference[side].get('amount', '')} {difference[side].get('currency', '')}"
        for side in ("listed", "told")
        if side in difference
    }
    return {**difference, "difference": kind.lower().replace("_", " "), **amounts}
