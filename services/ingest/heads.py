"""Makes sure that each shard has a head, as soon as the database can be reached."""

from __future__ import annotations

import asyncio
import logging

from common.cancellation import heed_cancellation
from common.db import Database
from common.log import describe_failure
from services.ingest.repository import add_heads

log = logging.getLogger(__name__)

_TRY_AGAIN_SECONDS = 0.5


async def make_heads(database: Database, *, shard_count: int) -> None:
    """Give each shard that has none a head, however long the database is away."""
    while True:
        try:
            async with database.begin() as transaction:
                await add_heads(transaction, shard_count=shard_count)
            return
        except Exception as error:  # It may lack its tables yet, too.
            heed_cancellation()
            log.warning("waiting for the database", extra=describe_failure(error))
        await asyncio.sleep(_TRY_AGAIN_SECONDS)
