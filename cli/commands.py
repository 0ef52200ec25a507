"""What the command line can do: its commands, their arguments, and the calls behind them."""

from __future__ import annotations

import argparse
import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cli import export, reconcile
from cli.failures import CommandFailed, ExitCode
from cli.gateway import Gateway, path_of
from cli.scan import scan
from cli.terminal import Terminal

Run = Callable[[argparse.Namespace, Callable[[], Gateway], Terminal], ExitCode]

SERVICES = ("ingest", "query", "keys", "maintenance")
_LIMIT = 1000
# As long as the gateway lets a call wait for a first event.
_TAIL_WAIT = "2s"
_DURATION = re.compile(r"([0-9]{1,6})([smhd])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_STORE_COLUMNS = ("uid", "display_name", "create_time", "delete_time")
_KEY_COLUMNS = (
    "uid",
    "kind",
    "hint",
    "display_name",
    "last_used_time",
    "expire_time",
    "revoke_time",
    "safe_to_revoke",
)
_HISTORY_COLUMNS = (
    "create_time",
    "action",
    "outcome",
    "actor",
    "client_network",
    "key_uid",
    "detail",
)
_EVENT_COLUMNS = ("occur_time", "type", "name", "user_id", "anonymous_id")
_JOB_COLUMNS = ("name", "period", "next_scheduled_time", "overdue")
_FINDING_COLUMNS = ("path", "line", "hint", "is_secret")


def build_parser() -> argparse.ArgumentParser:
    """Reads the command line; each command has its `run`."""
    parser = argparse.ArgumentParser(
        prog="shoptrail",
        description="Looks after stores, keys and events of a Shoptrail mesh.",
        epilog=(
            "Exit codes: 0 done; 1 scan found a key, the trail is broken, or orders differ;"
            " 2 wrong usage; 3 refused; 4 not found; 5 not possible in this state; 6 no answer;"
            " 7 our fault."
        ),
    )
    parser.add_argument("--url", help="the gateway; else SHOPTRAIL_URL, else .run/mesh.json")
    parser.add_argument("--json", action="store_true", help="write JSON, a line for each entry")
    parser.set_defaults(demo_key="operator_key")
    groups = parser.add_subparsers(required=True, metavar="command")
    _add_stores(groups.add_parser("stores", help="list, make, rename, delete, restore stores"))
    _add_keys(groups.add_parser("keys", help="list, make, rotate, end, restore keys"))
    _add_audit(groups.add_parser("audit", help="who did what to stores and keys"))
    _add_jobs(groups.add_parser("jobs", help="list and run scheduled jobs"))

    command = groups.add_parser("scan", help="find keys in files")
    command.add_argument("paths", nargs="+", type=Path, metavar="path")
    command.set_defaults(run=_scan)
    command = groups.add_parser("tail", help="show events as they come")
    command.add_argument("store")
    command.add_argument("--name", default="", help="only events of this name")
    command.add_argument("--count", type=int, default=0, help="end after so many events")
    command.set_defaults(run=_tail)
    export.add_to(groups.add_parser("export", help="write a store's events into files"))
    reconcile.add_to(groups.add_parser("reconcile", help="compare the shop's orders with events"))
    return parser


def _add_stores(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="command")
    command = commands.add_parser("list")
    command.add_argument("--deleted", action="store_true", help="those that are deleted too")
    command.set_defaults(run=_list_stores)
    command = commands.add_parser("create")
    command.add_argument("name")
    command.set_defaults(run=_create_store)
    command = commands.add_parser("rename")
    command.add_argument("store")
    command.add_argument("name")
    command.set_defaults(run=_rename_store)
    for name, verb, suffix in (
        ("get", "GET", ""),
        ("delete", "DELETE", ""),
        ("undelete", "POST", ":undelete"),
    ):
        command = commands.add_parser(name)
        command.add_argument("store")
        command.set_defaults(run=_calling_store(verb, suffix))


def _add_keys(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="command")
    command = commands.add_parser("list")
    command.add_argument("store")
    command.add_argument("--deleted", action="store_true", help="those that are deleted too")
    command.set_defaults(run=_list_keys)
    command = commands.add_parser("create", help="make a key and show its text, once")
    command.add_argument("store")
    command.add_argument("kind", choices=("publishable", "secret"))
    command.add_argument("--name", default="")
    command.add_argument("--scope", action="append", default=[], dest="scopes")
    command.add_argument("--origin", action="append", default=[], dest="origins")
    command.add_argument("--expires", metavar="TIME", help="such as 2027-01-31T12:00:00Z")
    command.add_argument("--rotate-every", type=_seconds, metavar="90d")
    command.add_argument("--test", action="store_true", help="a key for trying things out")
    command.set_defaults(run=_create_key)
    command = commands.add_parser("rotate", help="make its successor and show the text, once")
    command.add_argument("store")
    command.add_argument("key")
    command.add_argument(
        "--overlap", type=_seconds, metavar="1d", help="how long the old key works on; 0s for none"
    )
    command.set_defaults(run=_rotate_key)
    for name, verb, suffix in (
        ("get", "GET", ""),
        ("revoke", "POST", ":revoke"),
        ("delete", "DELETE", ""),
        ("undelete", "POST", ":undelete"),
    ):
        command = commands.add_parser(name)
        command.add_argument("store")
        command.add_argument("key")
        command.set_defaults(run=_calling_key(verb, suffix))


def _add_audit(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="command")
    command = commands.add_parser("list", help="what was done to a store and its keys")
    command.add_argument("store")
    command.add_argument("--limit", type=int, default=100)
    command.set_defaults(run=_list_history)
    command = commands.add_parser("verify", help="check that nothing was removed or altered")
    command.add_argument("--position", type=int, default=0, help="as noted the last time")
    command.add_argument("--hash", default="", help="as noted the last time")
    command.set_defaults(run=_verify_audit)


def _add_jobs(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(demo_key="cron_key")
    commands = parser.add_subparsers(required=True, metavar="command")
    command = commands.add_parser("list")
    command.add_argument("service", choices=SERVICES)
    command.set_defaults(run=_list_jobs)
    command = commands.add_parser("run", help="run a job for its latest scheduled time")
    command.add_argument("service", choices=SERVICES)
    command.add_argument("job")
    command.set_defaults(run=_run_job)


def _list_stores(
    arguments: argparse.Namespace, open_gateway: Callable[[], Gateway], terminal: Terminal
) -> ExitCode:
    parameters = {"show_deleted": "true"} if arguments.deleted else {}
    stores = open_gateway().list_all("/v1/stores", "stores", parameters=parameters, limit=_LIMIT)
    terminal.show_rows(stores, _STORE_COLUMNS)
    return ExitCode.DONE


def _create_store(
    arguments: argparse.Namespace, open_gateway: Callable[[], Gateway], terminal: Terminal
) -> ExitCode:
    answer = open_gateway().call("POST", "/v1/stores", body={"display_name": arguments.name})
    terminal.show(answer["store"])
    return ExitCode.DONE


def _rename_store(
    arguments: argparse.Namespace, open_gateway: Callable[[], Gateway], terminal: Terminal
) -> ExitCode:
    path = path_of("stores", arguments.store)
    answer = open_gateway().call("PATCH", path, body={"display_name": arguments.name})
    terminal.show(answer["store"])
    return ExitCode.DONE


def _calling_store(verb: str, suffix: str) -> Run:
    def run(
        arguments: argparse.Namespace, open_gateway: Callable[[], Gateway], terminal: Terminal
    ) -> ExitCode:
        path = path_of("stores", f"{arguments.store}{suffix}")
        terminal.show(open_gateway().call(verb, path)["store"])
        return ExitCode.DONE

    return run


def _list_keys(
    arguments: argparse.Namespace, open_gateway: Callable[[], Gateway], terminal: Terminal
) -> ExitCode:
    parameters = {"show_deleted": "true"} if arguments.deleted else {}
    path = path_of("stores", arguments.store, "keys")
    keys = open_gateway().list_all(path, "keys", parameters=parameters, limit=_LIMIT)
    terminal.show_rows((_shorten(key) for key in keys), _KEY_COLUMNS)
    return ExitCode.DONE


def _create_key(
    arguments: argparse.Namespace, open_gateway: Callable[[], Gateway], terminal: Terminal
) -> ExitCode:
    body: dict[str, Any] = {
        "kind": arguments.kind,
        "display_name": arguments.name,
        "scopes": arguments.scopes,
        "allowed_origins": arguments.origins,
        "test": arguments.test,
    }
    if arguments.expires:
        body["expire_time"] = arguments.expires
    if arguments.rotate_every is not None:
        body["rotate_period"] = f"{arguments.rotate_every}s"
    path = path_of("stores", arguments.store, "keys")
    _show_new_key(open_gateway().call("POST", path, body=body), terminal)
    return ExitCode.DONE


def _rotate_key(
    arguments: argparse.Namespace, open_gateway: Callable[[], Gateway], terminal: Terminal
) -> ExitCode:
    body = {} if arguments.overlap is None else {"overlap": f"{arguments.overlap}s"}
    path = path_of("stores", arguments.store, "keys", f"{arguments.key}:rotate")
    answer = open_gateway().call("POST", path, body=body)
    _show_new_key(answer, terminal)
    terminal.say(f"The old key ends at {answer['old_key'].get('expire_time', '')}.")
    return ExitCode.DONE


def _show_new_key(answer: dict[str, Any], terminal: Terminal) -> None:
    if terminal.as_json:
        terminal.show(answer)
        return
    terminal.show({"text": answer["text"], **_shorten(answer["key"])})
    terminal.say("Keep the text: it can't be shown again.")


def _calling_key(verb: str, suffix: str) -> Run:
    def run(
        arguments: argparse.Namespace, open_gateway: Callable[[], Gateway], terminal: Terminal
    ) -> ExitCode:
        path = path_of("stores", arguments.store, "keys", f"{arguments.key}{suffix}")
        terminal.show(_shorten(open_gateway().call(verb, path)["key"]))
        return ExitCode.DONE

    return run


def _list_history(
    arguments: argparse.Namespace, open_gateway: Callable[[], Gateway], terminal: Terminal
) -> ExitCode:
    path = path_of("stores", arguments.store, "key-events")
    entries = open_gateway().list_all(path, "events", limit=arguments.limit)
    terminal.show_rows((_shorten(entry) for entry in entries), _HISTORY_COLUMNS)
    return ExitCode.DONE


def _verify_audit(
    arguments: argparse.Namespace, open_gateway: Callable[[], Gateway], terminal: Terminal
) -> ExitCode:
    gateway = open_gateway()
    position, hash = arguments.position, arguments.hash
    while True:
        parameters = {"after_position": position, "after_hash": hash}
        answer = gateway.call("GET", "/v1/audit:verify", parameters=parameters)
        position, hash = int(answer["position"]), answer["hash"]
        if not answer["intact"]:
            terminal.show(answer)
            return ExitCode.FOUND
        if answer["done"]:
            break
    terminal.show(answer)
    terminal.say("Note position and hash somewhere else, and begin with them the next time.")
    return ExitCode.DONE


def _list_jobs(
    arguments: argparse.Namespace, open_gateway: Callable[[], Gateway], terminal: Terminal
) -> ExitCode:
    answer = open_gateway().call("GET", path_of("cron", arguments.service, "jobs"))
    terminal.show_rows(answer["jobs"], _JOB_COLUMNS)
    return ExitCode.DONE


def _run_job(
    arguments: argparse.Namespace, open_gateway: Callable[[], Gateway], terminal: Terminal
) -> ExitCode:
    path = path_of("cron", arguments.service, f"{arguments.job}:run")
    answer = open_gateway().call("POST", path)
    outcome = answer["outcome"].removeprefix("RUN_CRON_OUTCOME_")
    terminal.show(answer if terminal.as_json else {"outcome": outcome, **answer.get("run", {})})
    return ExitCode.DONE


def _scan(
    arguments: argparse.Namespace, open_gateway: Callable[[], Gateway], terminal: Terminal
) -> ExitCode:
    try:
        findings = [asdict(finding) for finding in scan(arguments.paths)]
    except OSError as error:
        raise CommandFailed(str(error), ExitCode.USAGE) from error
    terminal.show_rows(findings, _FINDING_COLUMNS)
    return ExitCode.FOUND if findings else ExitCode.DONE


def _tail(
    arguments: argparse.Namespace, open_gateway: Callable[[], Gateway], terminal: Terminal
) -> ExitCode:
    gateway = open_gateway()
    tail = path_of("stores", arguments.store, "events:tail")
    asked = {"wait": _TAIL_WAIT, "page_size": 500}
    # Before the list, so that nothing is missed between the two.
    token = gateway.call("GET", tail, parameters=asked)["next_page_token"]
    path = path_of("stores", arguments.store, "events")
    parameters = {"name": arguments.name} if arguments.name else {}
    latest = list(gateway.list_all(path, "events", parameters=parameters, limit=100))
    new, listed = latest[::-1], {event["uid"] for event in latest}
    shown = 0
    while True:  # Ctrl-C ends it.
        if arguments.count:
            new = new[: arguments.count - shown]
        if new:
            terminal.show_rows(new, _EVENT_COLUMNS)
        shown += len(new)
        if arguments.count and shown >= arguments.count:
            return ExitCode.DONE
        answer = gateway.call("GET", tail, parameters={**asked, "page_token": token})
        token = answer["next_page_token"]
        new = [
            event
            for event in answer["events"]
            if event["uid"] not in listed and arguments.name in ("", event["name"])
        ]


def _seconds(text: str) -> int:
    """The seconds in a duration such as `90d`; raises `ArgumentTypeError`."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 30m, 1h or 7d")
    return int(found[1]) * _UNIT_SECONDS[found[2]]


def _shorten(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry with its enums' values as people say them, and its hash in hexadecimal."""
    shortened = dict(entry)
    for field, prefix in (
        ("kind", "KEY_KIND_"),
        ("action", "KEY_EVENT_ACTION_"),
        ("outcome", "KEY_EVENT_OUTCOME_"),
    ):
        if field in shortened:
            shortened[field] = str(shortened[field]).removeprefix(prefix).lower()
    if "hash" in shortened:
        shortened["hash"] = b64decode(shortened["hash"]).hex()
    return shortened
