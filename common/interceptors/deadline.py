"""Refuses calls that could run for ever."""

from __future__ import annotations

from typing import Any

from common.context import get_call
from common.errors import DeadlineMissing
from common.interceptors.wrap import Context, Handler, UnaryInterceptor

_LONGEST_SECONDS = 3600.0


class DeadlineInterceptor(UnaryInterceptor):
    """Lets only calls through that end within an hour."""

    async def around(self, method: str, handle: Handler, request: Any, context: Context) -> Any:
        remaining = get_call().remaining_seconds()
        if remaining is None or remaining > _LONGEST_SECONDS:
            raise DeadlineMissing
        return await handle(request, context)
