"""Asks the gateway over HTTP."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from email.message import Message
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from cli.failures import CommandFailed, ExitCode

_SECONDS = 60.0
_EXIT_CODES = {
    400: ExitCode.USAGE,
    401: ExitCode.REFUSED,
    403: ExitCode.REFUSED,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.WRONG_STATE,
    429: ExitCode.UNAVAILABLE,
    503: ExitCode.UNAVAILABLE,
    504: ExitCode.UNAVAILABLE,
}


class Gateway:
    """Calls the gateway at a URL with a key; each call has a connection of its own."""

    def __init__(self, url: str, key: str) -> None:
        """Raises `CommandFailed` if the URL is none."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CommandFailed(f"{url!r} is not the URL of a gateway.", ExitCode.USAGE)
        self._is_secure = parts.scheme == "https"
        self._address = parts.netloc.rpartition("@")[2]
        self._prefix = parts.path.rstrip("/")
        self._key = key

    def call(
        self,
        verb: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The answer's JSON; raises `CommandFailed` if it is a failure, or there is none."""
        status, _, text = self._ask(verb, path, body=body, parameters=parameters)
        return _read_answer(status, text)

    def download(
        self, path: str, *, parameters: Mapping[str, Any] | None = None
    ) -> tuple[bytes, Message]:
        """A file, and the headers that came with it; raises `CommandFailed` as `call` does."""
        status, headers, content = self._ask("GET", path, body=None, parameters=parameters)
        if not 200 <= status < 300:
            _read_answer(status, content)
        return content, headers

    def _ask(
        self,
        verb: str,
        path: str,
        *,
        body: Mapping[str, Any] | None,
        parameters: Mapping[str, Any] | None,
    ) -> tuple[int, Message, bytes]:
        """Status, headers and content; raises `CommandFailed` if there is no answer."""
        target = self._prefix + path
        if parameters:
            target += "?" + urlencode(parameters, doseq=True)
        headers = {"Authorization": f"Bearer {self._key}", "User-Agent": "shoptrail-cli/1"}
        content = None
        if verb in ("POST", "PATCH"):
            content = json.dumps(body or {}).encode()
            headers["Content-Type"] = "application/json"
        connect = http.client.HTTPSConnection if self._is_secure else http.client.HTTPConnection
        connection = connect(self._address, timeout=_SECONDS)
        try:
            connection.request(verb, target, content, headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise CommandFailed(
                f"The gateway at {self._address} gave no answer: {error}", ExitCode.UNAVAILABLE
            ) from error
        finally:
            connection.close()
        return response.status, response.headers, text

    def list_all(
        self, path: str, field: str, *, parameters: Mapping[str, Any] | None = None, limit: int
    ) -> Iterator[dict[str, Any]]:
        """The entries of all pages of a list, at most `limit`."""
        token = ""
        while limit > 0:
            asked = {**(parameters or {}), "page_size": min(limit, 500), "page_token": token}
            page = self.call("GET", path, parameters=asked)
            entries = page.get(field, [])[:limit]
            yield from entries
            limit -= len(entries)
            token = page.get("next_page_token", "")
            if not token:
                return


def path_of(*parts: str) -> str:
    """A path of these parts, each quoted; of `keys/key_1:rotate`, the verb comes with its part."""
    return "/v1/" + "/".join(quote(part, safe=":") for part in parts)


def _read_answer(status: int, text: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if 200 <= status < 300 and isinstance(answer, dict):
        return answer
    failure = answer.get("error", {}) if isinstance(answer, dict) else {}
    message = failure.get("message") if isinstance(failure, dict) else None
    exit_code = _EXIT_CODES.get(status, ExitCode.FAILED)
    if isinstance(failure, dict) and failure.get("status") == "FAILED_PRECONDITION":
        exit_code = ExitCode.WRONG_STATE
    raise CommandFailed(message or f"The gateway answered {status}.", exit_code)
