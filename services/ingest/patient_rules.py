"""Gives the rules of stores also while nobody can look them up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping

from common.cancellation import heed_cancellation
from common.log import describe_failure
from services.ingest.reach import is_out_of_reach
from services.ingest.rule_book import RuleBook
from services.ingest.rules import StoreRules

log = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 0.5
_LOOK_SECONDS = 5.0


class PatientRules:
    """Asks the rule book, and goes by what it remembers when that takes too long.

    From then on nobody waits, until a look in the background has succeeded.
    """

    def __init__(self, rule_book: RuleBook, *, patience_seconds: float) -> None:
        self._rule_book = rule_book
        self._patience_seconds = patience_seconds
        self._looks: set[asyncio.Task[Mapping[str, StoreRules]]] = set()
        self._regaining: asyncio.Task[None] | None = None

    async def rules_of(self, store_uids: Collection[str]) -> Mapping[str, StoreRules]:
        """The rules of these stores, and perhaps of others.

        While the database is away those that were known last; for a store of which nothing
        is known, such as store the least.
        """
        if (current := self._rule_book.current_rules_of(store_uids)) is not None:
            return current
        if self._regaining is not None:
            return self._rule_book.remembered_rules_of(store_uids)
        look = asyncio.create_task(self._rule_book.rules_of(store_uids))
        self._looks.add(look)
        look.add_done_callback(self._finish)
        done, _ = await asyncio.wait([look], timeout=self._patience_seconds)
        if done:
            error = look.exception()
            if error is None:
                return look.result()
            if not isinstance(error, Exception) or not is_out_of_reach(error):
                raise error
        # Not waited for: on a dead connection even giving up takes time.
        look.cancel()
        if self._regaining is None:
            log.warning("rules out of reach")
            self._regaining = asyncio.create_task(self._regain(store_uids))
        return self._rule_book.remembered_rules_of(store_uids)

    def _finish(self, look: asyncio.Task[Mapping[str, StoreRules]]) -> None:
        self._looks.discard(look)
        if not look.cancelled():
            look.exception()  # Whoever still waits has heard of it.

    async def _regain(self, store_uids: Collection[str]) -> None:
        """Look again and again, until it succeeds."""
        while True:
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._rule_book.rules_of(store_uids)
            except Exception as error:
                heed_cancellation()
                if not is_out_of_reach(error):
                    log.error("rules not read", extra=describe_failure(error))
            else:
                self._regaining = None
                return
