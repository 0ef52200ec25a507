"""A store to try things out with, and its keys."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc

from deploy.local.gateway_client import GatewayClient
from deploy.local.private_files import write_private
from deploy.local.processes import StartError
from shoptrail.keys.v1 import keys_pb2, keys_pb2_grpc
from shoptrail.keys.v1.api_key_pb2 import KEY_KIND_CRON, KEY_KIND_PUBLISHABLE, KEY_KIND_SECRET

_TIMEOUT_SECONDS = 10.0
_OPERATOR_SCOPES = (
    "events:write",
    "events:read",
    "reports:read",
    "keys:read",
    "keys:write",
    "stores:read",
    "stores:write",
    "settings:read",
    "settings:write",
    "privacy:write",
    "audit:read",
    "cron:run",
)
_READING_SCOPES = ("events:read", "reports:read")


@dataclass(frozen=True, slots=True)
class Demo:
    """The store's uid and the keys' texts."""

    store_uid: str
    write_key: str
    """Publishable: sends the store's events."""
    secret_key: str
    """Does all that the store's staff may."""
    cron_key: str
    """Calls the services' jobs."""
    operator_key: str
    """Opens all stores."""
    reading_key: str
    """Reads the store's events and reports, for the demo shop's panel."""


async def keep_demo(path: Path, *, gateway: GatewayClient, keys: grpc.aio.Channel) -> Demo:
    """The store and the keys in the file, if those still work; else new ones.

    `keys` is a channel to the service Keys, with the identity `operator`. The file's mode is
    0600, since Keys itself can't tell the keys again. Raises `StartError`.
    """
    kept = _read_demo(path)
    if kept is not None and await _works(kept, gateway):
        return kept
    try:
        made = await _make_demo(keys_pb2_grpc.KeysStub(keys))
    except grpc.aio.AioRpcError as error:
        raise StartError(f"Keys made no demo store: {error.code()}: {error.details()}") from error
    write_private(path, json.dumps(asdict(made), indent=2).encode())
    return made


def write_demo_shop(path: Path, demo: Demo) -> None:
    """Tell the gateway whose shop it is to show at `/demo`; no more keys than it needs for that."""
    shop = {
        "store_uid": demo.store_uid,
        "write_key": demo.write_key,
        "reading_key": demo.reading_key,
    }
    write_private(path, json.dumps(shop, indent=2).encode())


def _read_demo(path: Path) -> Demo | None:
    try:
        return Demo(**json.loads(path.read_bytes()))
    except (FileNotFoundError, TypeError):  # The latter if an earlier version made fewer keys.
        return None


async def _works(demo: Demo, gateway: GatewayClient) -> bool:
    """Whether the store is still there; not after its keys, or the pepper, were lost."""
    answer = await gateway.get(f"/v1/stores/{demo.store_uid}", key=demo.secret_key)
    if answer.status not in (200, 401, 404):
        raise StartError(f"The gateway answered {answer.status} when asked for the demo store.")
    return answer.status == 200


async def _make_demo(keys: keys_pb2_grpc.KeysAsyncStub) -> Demo:
    created = await keys.CreateStore(
        keys_pb2.CreateStoreRequest(display_name="Demo store"), timeout=_TIMEOUT_SECONDS
    )
    store_uid = created.store.uid

    async def make_key(**fields: Any) -> str:
        request = keys_pb2.CreateKeyRequest(**fields)
        return (await keys.CreateKey(request, timeout=_TIMEOUT_SECONDS)).text

    return Demo(
        store_uid=store_uid,
        write_key=await make_key(
            kind=KEY_KIND_PUBLISHABLE, store_uid=store_uid, display_name="Demo storefront"
        ),
        secret_key=await make_key(
            kind=KEY_KIND_SECRET, store_uid=store_uid, display_name="Demo staff"
        ),
        cron_key=await make_key(kind=KEY_KIND_CRON, display_name="Local clock"),
        operator_key=await make_key(
            kind=KEY_KIND_SECRET, display_name="Local operator", scopes=_OPERATOR_SCOPES
        ),
        reading_key=await make_key(
            kind=KEY_KIND_SECRET,
            store_uid=store_uid,
            display_name="Demo shop's panel",
            scopes=_READING_SCOPES,
        ),
    )
