"""Pods on this machine: each has an address of its own, its certificate, and a real Envoy."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from common.tls import CertificateFiles, Certificates
from deploy.envoy.binary import envoy_binary
from deploy.envoy.render import render
from deploy.envoy.settings import ADMIN_PORT, APPLICATION_PORT, EDGE_PORT, Environment
from deploy.local.certificates import CertificateFiles as IssuedFiles
from deploy.local.processes import Child, Program, kept_running

_START_SECONDS = 20.0
_STOP_SECONDS = 5.0


def new_network() -> str:
    """The beginning of addresses of this machine that nobody else uses, such as `127.61.7.`."""
    return f"127.{20 + secrets.randbelow(200)}.{secrets.randbelow(256)}."


@dataclass
class Pod:
    """An address, and a directory with the certificate of an identity."""

    identity: str
    address: str
    directory: Path
    child: Child | None = field(default=None)

    @property
    def tls(self) -> Path:
        return self.directory / "tls"

    @property
    def application(self) -> str:
        """Where the pod's own process listens."""
        return f"{self.address}:{APPLICATION_PORT}"

    @property
    def url(self) -> str:
        """Where an edge is found by everyone."""
        return f"https://{self.address}:{EDGE_PORT}"

    def certificates(self) -> Certificates:
        """What the pod's own process shows, read anew when it is replaced."""
        return CertificateFiles(
            certificate=self.tls / "tls.crt",
            key=self.tls / "tls.key",
            authority=self.tls / "ca.crt",
        ).read()

    def mount(self, issued: IssuedFiles) -> None:
        """Put the certificate where it is read, or another in its stead, as the kubelet does."""
        version = self.directory / "tls" / f"..{secrets.token_hex(4)}"
        version.mkdir(parents=True)
        for name, source in (
            ("tls.crt", issued.certificate),
            ("tls.key", issued.key),
            ("ca.crt", issued.authority),
        ):
            shutil.copy(source, version / name)
            link = self.tls / name
            if not link.is_symlink():
                link.symlink_to(Path("..data") / name)
        draft = self.tls / "..data_tmp"
        draft.symlink_to(version.name)
        draft.rename(self.tls / "..data")

    async def statistics(self) -> dict[str, int]:
        """Envoy's counters and gauges, by name."""
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://{self.address}:{ADMIN_PORT}/stats")
        pairs = (line.rpartition(": ") for line in answer.text.splitlines())
        return {name: int(value) for name, _, value in pairs if value.isdigit()}


class Pods:
    """Makes pods for the block in which it lives, all in one network of this machine."""

    def __init__(
        self, directory: Path, issued: Mapping[str, IssuedFiles], environment: Environment
    ) -> None:
        self._directory = directory
        self.issued = issued
        self._environment = environment
        self._network = new_network()
        self._count = 0

    def new(self, identity: str) -> Pod:
        """A pod without an Envoy."""
        self._count += 1
        pod = Pod(
            identity,
            address=f"{self._network}{self._count}",
            directory=self._directory / f"{identity}-{self._count}",
        )
        pod.mount(self.issued[identity])
        return pod

    @asynccontextmanager
    async def proxied(self, pod: Pod, hosts: Mapping[str, tuple[str, ...]]) -> AsyncIterator[Pod]:
        """Run the pod's Envoy for the block. `hosts` says where the other processes are."""
        environment = replace(
            self._environment,
            hosts={**self._environment.hosts, **hosts},
            inside=pod.address,
            outside=pod.address,
            configuration=str(pod.directory),
            certificates=str(pod.tls),
            public_certificates=str(pod.tls),
        )
        for name, text in render(environment).items():
            (pod.directory / name).write_text(text)
        path = pod.directory / f"{pod.identity}.yaml"
        program = Program(
            name=f"{pod.identity}-envoy",
            arguments=(
                envoy_binary(),
                *("-c", str(path), "--disable-hot-restart"),
                *("--concurrency", "1", "-l", "warning", "--drain-time-s", "1"),
                *("--file-flush-interval-msec", "50"),
            ),
            log=pod.directory / "envoy.log",
        )
        pod.child = Child(program)
        async with kept_running(pod.child, patience_seconds=_STOP_SECONDS):
            await pod.child.wait_until(lambda: _is_live(pod), within_seconds=_START_SECONDS)
            yield pod

    def log_of(self, pod: Pod) -> str:
        return (pod.directory / "envoy.log").read_text(errors="replace")


async def _is_live(pod: Pod) -> bool:
    async with httpx.AsyncClient(timeout=1.0) as client:
        try:
            return (await client.get(f"http://{pod.address}:{ADMIN_PORT}/ready")).text == "LIVE\n"
        except httpx.HTTPError:
            return False


async def eventually(claim: Callable[[], Awaitable[bool]], *, seconds: float = 10.0) -> None:
    """Wait until the claim is true."""
    async with asyncio.timeout(seconds):
        while True:
            if await claim():
                return
            await asyncio.sleep(0.05)
