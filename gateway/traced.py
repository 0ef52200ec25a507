"""Traces HTTP requests, where traces are made."""

from __future__ import annotations

from opentelemetry.trace import SpanKind, Status, StatusCode

from common.tracing import parent_in, span
from gateway.exchange import Application, Request, Response


class TracedApplication:
    """An application whose requests each make a span, named by route and never by path."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, request: Request) -> Response:
        """The application's answer."""
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in request.headers.items()
        }
        method = request.method
        with span(
            method, SpanKind.SERVER, {"http.request.method": method}, parent=parent_in(headers)
        ) as made:
            try:
                response = await self._application(request)
            finally:
                if request.route:
                    made.update_name(f"{method} {request.route}")
                    made.set_attribute("http.route", request.route)
            made.set_attribute("http.response.status_code", response.status)
            if response.status >= 500:
                made.set_status(Status(StatusCode.ERROR))
            return response
