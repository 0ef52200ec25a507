"""Free ports, and that they stay ours."""

import socket

import pytest

from deploy.local import ports


def listen(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))


def test_a_server_of_ours_listens_on_a_reserved_port_again_and_again() -> None:
    with ports.reserved(1) as (port,):
        for _ in range(2):
            with listen(port):
                pass


def test_a_reserved_port_is_given_to_nobody_else() -> None:
    with ports.reserved(1) as (port,), socket.socket() as other:
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))


def test_reserved_ports_lie_below_those_of_outgoing_connections() -> None:
    with ports.reserved(20) as numbers:
        assert len(set(numbers)) == 20
        assert all(20_000 <= number < 32_768 for number in numbers)


def test_a_port_that_another_program_listens_on_is_refused() -> None:
    with ports.reserved(1) as (port,), listen(port):
        with pytest.raises(ports.PortTakenError, match=f"Port {port} can't be used"):
            ports.require_free(port)


def test_a_port_that_nobody_listens_on_is_free() -> None:
    with ports.reserved(1) as (port,):
        ports.require_free(port)
