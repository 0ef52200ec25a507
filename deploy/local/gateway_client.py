"""Asks the gateway over HTTP, as anyone would."""

import asyncio
import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class GatewayUnreachableError(Exception):
    """The gateway gave no answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status and the JSON that came with it."""

    status: int
    body: Any


class GatewayClient:
    """Calls the gateway at an address; each call has a connection of its own."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def get(
        self, path: str, *, key: str | None = None, timeout_seconds: float = 5.0
    ) -> Answer:
        """The answer, whatever its status. Raises `GatewayUnreachableError`."""
        return await asyncio.to_thread(self._request, "GET", path, key, timeout_seconds)

    async def post(
        self,
        path: str,
        *,
        key: str | None = None,
        body: Mapping[str, Any] | None = None,
        timeout_seconds: float = 60.0,
    ) -> Answer:
        """The answer to a JSON body, empty if none is given, whatever its status.

        Raises `GatewayUnreachableError`.
        """
        text = json.dumps(body or {})
        return await asyncio.to_thread(self._request, "POST", path, key, timeout_seconds, text)

    def _request(
        self,
        method: str,
        path: str,
        key: str | None,
        timeout_seconds: float,
        body: str | None = None,
    ) -> Answer:
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        connection = http.client.HTTPConnection(self._address, timeout=timeout_seconds)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise GatewayUnreachableError(str(error)) from error
        finally:
            connection.close()
        try:
            return Answer(response.status, json.loads(text))
        except ValueError:
            return Answer(response.status, None)
