"""However many keys are tried, a gateway remembers a bounded number, and never drops good ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from common.client import open_channel
from common.errors import KeyNotValid
from common.keyring import Keyring
from common.tls import Certificates
from services.keys.key_text import Kind, new_key_text
from shoptrail.keys.v1.keys_pb2_grpc import KeysStub
from tests.security.conftest import Town


@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
async def test_a_flood_of_made_up_keys_fills_no_memory_and_drives_out_no_key(
    town: Town, certificates: Mapping[str, Certificates]
) -> None:
    created = await town.new_key(await town.new_store())
    address = f"127.0.0.1:{town.mesh.ports['keys']}"
    async with open_channel(
        address, "shoptrail.keys.v1.Keys", "keys", certificates["gateway"]
    ) as channel:
        keyring = Keyring(
            KeysStub(channel),
            stale_seconds=300,
            now=lambda: datetime.now(UTC),
            monotonic=time.monotonic,
            max_remembered=20,
        )
        key = await keyring.verify(created.text)

        async def try_made_up_key() -> None:
            with pytest.raises(KeyNotValid):
                await keyring.verify(new_key_text(Kind.SECRET, test=False))

        for _ in range(12):
            await asyncio.gather(*(try_made_up_key() for _ in range(5)))
        await town.mesh.stop("keys")

        assert keyring.count_remembered() == 21
        assert await keyring.verify(created.text) == key
