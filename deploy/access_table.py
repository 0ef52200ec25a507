"""Writes docs/access.md: who may call what, from the rules that stand beside the RPCs.

python -m deploy.access_table
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

from common.access import methods_of, rule_of
from shoptrail.access.v1 import access_pb2

PAGE = Path(__file__).parent.parent / "docs" / "access.md"
CONTRACTS = (
    "shoptrail.ingest.v1.Ingest",
    "shoptrail.query.v1.Query",
    "shoptrail.keys.v1.Keys",
    "shoptrail.maintenance.v1.Maintenance",
    "shoptrail.maintenance.v1.Privacy",
)

_HEAD = """\
# Who may call what

Generated from the rules in `protos/` by `make access`; a test compares the two.

A *caller* is an identity in a client certificate, `spiffe://shoptrail/<identity>`. *Scopes* are \
those that an API key needs, all of them, when the gateway calls on its behalf or a `client` \
shows it; where a request names a store, the key must be that store's, or belong to none. \
Everyone else is answered `PERMISSION_DENIED`, before anything is looked up. RPCs without an \
HTTP route are for the mesh only.
"""


def describe_access() -> str:
    """The page, in Markdown."""
    return "\n".join([_HEAD, *_describe_services()])


def _describe_services() -> Iterator[str]:
    for contract in CONTRACTS:
        package, _, name = contract.rpartition(".")
        importlib.import_module(f"{package}.{name.lower()}_pb2")
        yield f"## {name}\n"
        if name == "Maintenance":
            yield "Served by each of the four services, for its own jobs.\n"
        if name == "Privacy":
            yield "Served by Maintenance alone.\n"
        yield "| RPC | callers | scopes | HTTP |"
        yield "| --- | --- | --- | --- |"
        for method in methods_of(contract):
            rule = rule_of(method)
            route = method.GetOptions().Extensions[access_pb2.http]
            verb = route.WhichOneof("pattern")
            http = f"`{verb.upper()} {getattr(route, verb)}`" if verb else ""
            callers = ", ".join(sorted(rule.callers))
            scopes = ", ".join(f"`{scope}`" for scope in rule.scopes)
            yield f"| `{method.name}` | {callers} | {scopes} | {http} |"
        yield ""


def main() -> None:
    """Write the page."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(describe_access())
    sys.stdout.write(f"{PAGE.name} is up to date.\n")


if __name__ == "__main__":
    main()
