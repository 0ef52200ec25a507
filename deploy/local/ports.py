"""Free ports of this machine, kept for us while we need them."""

import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

# Below the range from which Linux takes ports for outgoing connections: one of those
# could otherwise sit on a port while its server starts again.
_RANGE = range(20_000, 32_768)
_ATTEMPT_COUNT = 1_000


class PortTakenError(Exception):
    """Another program listens on the port that was asked for."""


@contextmanager
def reserved(count: int) -> Iterator[list[int]]:
    """Ports of 127.0.0.1 that are free, and stay so for the block.

    Our own servers can listen on them, and again after a crash; another reservation or a
    program that asks for any free port can't have them.
    """
    with ExitStack() as stack:
        yield [_reserve(stack) for _ in range(count)]


def require_free(port: int) -> None:
    """Raise `PortTakenError` if another program listens on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError as error:
            raise PortTakenError(f"Port {port} can't be used: {error.strerror}.") from error


def _reserve(stack: ExitStack) -> int:
    for _ in range(_ATTEMPT_COUNT):
        port = secrets.choice(_RANGE)
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        if sys.platform == "linux":
            # Bound without the option, so that the port was free of all others; with it from
            # now on, so that a server which sets it too, as all do, may listen beside us.
            claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stack.enter_context(claim)
        else:
            claim.close()
        return port
    raise PortTakenError(f"No port from {_RANGE[0]} to {_RANGE[-1]} is free.")
