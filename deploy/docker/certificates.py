"""Makes the certificates of a mesh on a single server.

    python -m deploy.docker.certificates /tls

makes an authority and, for each identity, a directory of `tls.crt`, `tls.key` and `ca.crt`. What
is valid for more than a week is kept; everything else is made anew. Run it again once a month:
processes and proxies take the new ones up by themselves.
"""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from deploy.local.certificates import issue_certificates
from deploy.local.private_files import make_private_directory, write_private

IDENTITIES = (
    *("ingest", "query", "keys", "maintenance", "gateway", "edge"),
    *("cron", "operator", "order-service", "back-office", "client"),
)


def issue(directory: Path, *, now: datetime) -> None:
    """Make what is missing or old in the directory."""
    issued = issue_certificates(directory / "authority", IDENTITIES, now=now)
    for identity, files in issued.items():
        make_private_directory(directory / identity)
        for name, source in (
            ("tls.key", files.key),
            ("tls.crt", files.certificate),
            ("ca.crt", files.authority),
        ):
            content = source.read_bytes()
            target = directory / identity / name
            if not target.exists() or target.read_bytes() != content:
                write_private(target, content)


def main() -> None:
    """Issue into the directory that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m deploy.docker.certificates")
    parser.add_argument("directory", type=Path)
    directory: Path = parser.parse_args().directory
    issue(directory, now=datetime.now(UTC))
    sys.stdout.write(f"{directory} has the certificates of {', '.join(IDENTITIES)}.\n")


if __name__ == "__main__":
    main()
