"""Shows a service's metrics to Prometheus."""

from prometheus_client import start_http_server


def start_metrics(address: str) -> None:
    """Serve `/metrics` over plain HTTP at host and port, from a thread of its own.

    Raises `OSError` if the port is taken.
    """
    host, _, port = address.rpartition(":")
    start_http_server(int(port), addr=host)
