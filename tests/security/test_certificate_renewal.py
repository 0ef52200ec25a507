"""Certificates are replaced while processes run: nobody restarts, and no call is lost."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from common.client import open_channel
from common.server import build_server, listen
from common.tls import CertificateFiles, Certificates
from deploy.local.certificates import issue_certificates
from shoptrail.keys.v1 import keys_pb2, keys_pb2_grpc
from tests.gateway.conftest import FakeService

KEYS = "shoptrail.keys.v1.Keys"
REQUEST = keys_pb2.ListStoresRequest()


@dataclass(frozen=True, slots=True)
class Scene:
    """A server and a client whose certificates lie in files, and two authorities."""

    directory: Path
    address: str
    client: keys_pb2_grpc.KeysAsyncStub
    connect: Callable[[str], keys_pb2_grpc.KeysAsyncStub]
    """A stub over a new connection, with an authority's own certificates."""

    def replace(self, identity: str, authority: str) -> None:
        """Put another authority's certificates where the identity's are read from."""
        for name in (f"{identity}.key", f"{identity}.pem"):
            shutil.copy(self.directory / authority / name, self.directory / identity / name)
        shutil.copy(
            self.directory / authority / "authority.pem",
            self.directory / identity / "authority.pem",
        )


def files_of(directory: Path, identity: str) -> Certificates:
    return CertificateFiles(
        certificate=directory / f"{identity}.pem",
        key=directory / f"{identity}.key",
        authority=directory / "authority.pem",
    ).read()


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    for authority in ("old", "new"):
        issue_certificates(tmp_path / authority, ("keys", "operator"), now=datetime.now(UTC))
    async with AsyncExitStack() as stack:
        for identity in ("keys", "operator"):
            shutil.copytree(tmp_path / "old", tmp_path / identity)
        server = build_server([KEYS])
        FakeService(KEYS).add_to(server)
        port = listen(server, "127.0.0.1:0", files_of(tmp_path / "keys", "keys"))
        await server.start()
        stack.push_async_callback(server.stop, None)
        address = f"127.0.0.1:{port}"
        channels: list[grpc.aio.Channel] = []

        def open_with(certificates: Certificates) -> keys_pb2_grpc.KeysAsyncStub:
            channels.append(open_channel(address, KEYS, "keys", certificates, look_seconds=0))
            return keys_pb2_grpc.KeysStub(channels[-1])

        yield Scene(
            directory=tmp_path,
            address=address,
            client=open_with(files_of(tmp_path / "operator", "operator")),
            connect=lambda authority: open_with(files_of(tmp_path / authority, "operator")),
        )
        for channel in channels:
            await channel.close()


async def test_server_and_client_go_on_with_certificates_of_a_new_authority(scene: Scene) -> None:
    await scene.client.ListStores(REQUEST, timeout=5)
    await scene.connect("old").ListStores(REQUEST, timeout=5)
    with pytest.raises(grpc.aio.AioRpcError):
        await scene.connect("new").ListStores(REQUEST, timeout=1)

    scene.replace("keys", "new")
    scene.replace("operator", "new")

    await scene.client.ListStores(REQUEST, timeout=5)
    await scene.connect("new").ListStores(REQUEST, timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await scene.connect("old").ListStores(REQUEST, timeout=1)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_files_that_do_not_fit_one_another_are_not_used(scene: Scene) -> None:
    shutil.copy(scene.directory / "new" / "keys.pem", scene.directory / "keys" / "keys.pem")
    (scene.directory / "operator" / "operator.key").unlink()

    await scene.client.ListStores(REQUEST, timeout=5)
    await scene.connect("old").ListStores(REQUEST, timeout=5)


async def test_certificates_that_are_still_the_same_are_not_read_anew(tmp_path: Path) -> None:
    issue_certificates(tmp_path, ("keys",), now=datetime.now(UTC))
    certificates = files_of(tmp_path, "keys")

    untouched = certificates.read_again()
    (tmp_path / "keys.pem").touch()
    touched = certificates.read_again()

    assert (untouched, touched) == (None, None)
