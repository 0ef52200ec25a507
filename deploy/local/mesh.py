"""The whole mesh on this machine: started in order, kept running, stopped in order."""

import asyncio
import fcntl
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from common.client import open_channel
from common.tls import Certificates
from deploy.local import environment, mariadb, ports, redis
from deploy.local.certificates import CertificateFiles, issue_certificates
from deploy.local.clock import Clock
from deploy.local.demo import Demo, keep_demo, write_demo_shop
from deploy.local.environment import IDENTITIES, SERVICES, Addresses, Secrets
from deploy.local.gateway_client import GatewayClient, GatewayUnreachableError
from deploy.local.private_files import make_private_directory, write_private
from deploy.local.processes import Child, Program, StartError, kept_running, run_to_end, together

DATABASES = ("sqlite", "mysql")

_READY_SECONDS = 60.0
_PROBE_INTERVAL_SECONDS = 0.05
# More than the environment gives a process to finish its calls in, as after an erasure a large
# SQLite file is written anew.
_STOP_SECONDS = 20.0
_NOBODY: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the mesh lives, and what it is made of."""

    directory: Path
    """Holds everything that the mesh writes. Absolute."""
    port: int
    """The gateway's, on 127.0.0.1. If 0, any that is free."""
    database: str
    """One of `DATABASES`."""

    @property
    def logs(self) -> Path:
        """The directory of the processes' logs."""
        return self.directory / "logs"

    @property
    def announcement(self) -> Path:
        """The file that says where everything is, while the mesh runs."""
        return self.directory / "mesh.json"


@dataclass(frozen=True, slots=True)
class RunningMesh:
    """What there is to use."""

    gateway_url: str
    demo: Demo


@dataclass(frozen=True, slots=True)
class _Stores:
    """Where each service's data is."""

    database_urls: Mapping[str, str]
    redis_urls: Mapping[str, str]


class Mesh:
    """Redis, the database, the services, the gateway, and the clock that calls their jobs."""

    def __init__(self, settings: Settings, *, now: Callable[[], datetime]) -> None:
        self._settings = settings
        self._now = now
        self._children: list[Child] = []
        self._announced: dict[str, object] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RunningMesh]:
        """Run the mesh for the block, which begins once an event can be sent.

        Raises `StartError` if something doesn't come up or another launcher uses the
        directory, and `PortTakenError`.
        """
        settings = self._settings
        make_private_directory(settings.directory)
        async with AsyncExitStack() as stack:
            stack.enter_context(sole_launcher(settings.directory))
            settings.announcement.unlink(missing_ok=True)
            addresses = stack.enter_context(_addresses(settings.port))
            secrets = environment.keep_secrets(settings.directory / "secrets.json")
            certificates = issue_certificates(
                settings.directory / "tls", IDENTITIES, now=self._now()
            )

            stores = await self._start_stores(stack, secrets)
            services = [
                self._add_child(
                    f"services.{service}",
                    environment.of_service(
                        service,
                        addresses=addresses,
                        certificates=certificates[service],
                        database_url=stores.database_urls[service],
                        redis_url=stores.redis_urls[service],
                        data_directory=self._data_directory,
                        secrets=secrets,
                    ),
                )
                for service in SERVICES
            ]
            gateway = self._add_child(
                "gateway",
                environment.of_gateway(
                    addresses,
                    certificates["gateway"],
                    demo_shop=self._demo_shop,
                    secrets=secrets,
                ),
            )
            for children in (services, [gateway]):
                await stack.enter_async_context(
                    kept_running(*children, patience_seconds=_STOP_SECONDS)
                )

            client = GatewayClient(addresses.gateway)
            await self._wait_until_ready(client)
            demo = await self._keep_demo(client, addresses, certificates["operator"])
            write_demo_shop(self._demo_shop, demo)
            clock = Clock(client, cron_key=demo.cron_key, services=SERVICES, now=self._now)
            await stack.enter_async_context(_ticking(clock))
            stack.enter_context(self._announcing(addresses, demo))
            yield RunningMesh(gateway_url=f"http://{addresses.gateway}", demo=demo)

    def kill(self) -> None:
        """End all processes at once. Nothing is lost that was answered as stored."""
        for child in self._children:
            child.kill()

    def _add_child(self, module: str, variables: Mapping[str, str]) -> Child:
        name = module.removeprefix("services.")
        program = Program(
            name=name,
            arguments=(sys.executable, "-m", module),
            log=self._settings.logs / f"{name}.log",
            environment=variables,
        )
        child = Child(program, on_restart=self._announce)
        self._children.append(child)
        return child

    async def _start_stores(self, stack: AsyncExitStack, secrets: Secrets) -> _Stores:
        """Start Redis and the database side by side, the latter up to the latest schema."""
        redis_urls = {}
        database_urls = {}

        async def start_redis() -> None:
            server = await stack.enter_async_context(
                redis.running(
                    self._settings.directory / "redis",
                    secrets.redis_passwords,
                    log=self._settings.logs / "redis.log",
                    on_restart=self._announce,
                )
            )
            self._children.append(server.child)
            redis_urls.update({service: server.url(service) for service in SERVICES})

        async def start_mariadb() -> None:
            server = await stack.enter_async_context(
                mariadb.running(
                    self._data_directory,
                    passwords=secrets.database_passwords,
                    migration_passwords=secrets.migration_passwords,
                    log=self._settings.logs / "mariadb.log",
                    on_restart=self._announce,
                )
            )
            self._children.append(server.child)
            database_urls.update({service: server.url(service) for service in SERVICES})
            await self._migrate(
                {service: server.migration_url(service) for service in SERVICES},
                grant_to={service: server.account(service) for service in SERVICES},
            )

        async def make_sqlite_files() -> None:
            files = {service: self._data_directory / f"{service}.db" for service in SERVICES}
            database_urls.update(
                {service: f"sqlite+aiosqlite:///{file}" for service, file in files.items()}
            )
            await self._migrate(database_urls)

        make_private_directory(self._data_directory)
        on_mysql = self._settings.database == "mysql"
        await together(start_redis(), start_mariadb() if on_mysql else make_sqlite_files())
        return _Stores(database_urls, redis_urls)

    @property
    def _data_directory(self) -> Path:
        return self._settings.directory / self._settings.database

    @property
    def _demo_shop(self) -> Path:
        return self._data_directory / "demo-shop.json"

    async def _migrate(
        self, urls: Mapping[str, str], *, grant_to: Mapping[str, str] = _NOBODY
    ) -> None:
        programs = [
            Program(
                name=f"migrate-{service}",
                arguments=(sys.executable, "-m", "common.migrate", service),
                log=self._settings.logs / f"migrate-{service}.log",
                environment={
                    f"{service.upper()}_MIGRATION_DATABASE_URL": url,
                    f"{service.upper()}_GRANT_TO": grant_to.get(service, ""),
                },
            )
            for service, url in urls.items()
        ]
        await together(*(run_to_end(program) for program in programs))

    async def _wait_until_ready(self, client: GatewayClient) -> None:
        """Wait until the gateway takes requests, which it does once all services do."""
        missing: object = None
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while True:
                    for child in self._children:
                        child.require_alive()
                    try:
                        answer = await client.get("/readyz")
                        if answer.status == 200:
                            return
                        missing = answer.body
                    except GatewayUnreachableError:
                        missing = "gateway"
                    await asyncio.sleep(_PROBE_INTERVAL_SECONDS)
        except TimeoutError:
            told = json.dumps(missing)
            silent = [child for child in self._children if child.name in told]
            failures = [
                child.failure(f"was not ready within {_READY_SECONDS:g} s")
                for child in silent or self._children
            ]
            raise StartError("\n\n".join(map(str, failures))) from None

    async def _keep_demo(
        self, client: GatewayClient, addresses: Addresses, operator: CertificateFiles
    ) -> Demo:
        certificates = Certificates(
            certificate=operator.certificate.read_bytes(),
            key=operator.key.read_bytes(),
            authority=operator.authority.read_bytes(),
        )
        async with open_channel(
            addresses.grpc["keys"], "shoptrail.keys.v1.Keys", "keys", certificates
        ) as keys:
            return await keep_demo(self._data_directory / "demo.json", gateway=client, keys=keys)

    @contextmanager
    def _announcing(self, addresses: Addresses, demo: Demo) -> Iterator[None]:
        """Keep the file that says where everything is, for the block."""
        self._announced = {
            "gateway": f"http://{addresses.gateway}",
            "store_uid": demo.store_uid,
            "write_key": demo.write_key,
            "secret_key": demo.secret_key,
            "cron_key": demo.cron_key,
            "database": self._settings.database,
            "grpc": dict(addresses.grpc),
        }
        self._announce()
        try:
            yield
        finally:
            self._announced = None
            self._settings.announcement.unlink(missing_ok=True)

    def _announce(self) -> None:
        if self._announced is not None:
            pids = {child.name: child.pid for child in self._children}
            content = json.dumps({**self._announced, "pids": pids}, indent=2)
            write_private(self._settings.announcement, content.encode())


@contextmanager
def sole_launcher(directory: Path) -> Iterator[None]:
    """Keep other launchers out of the directory for the block. The kernel ends it with us."""
    with (directory / "launcher.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StartError(
                f"Another launcher, process {file.read()}, runs a mesh in {directory}."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def _addresses(gateway_port: int) -> Iterator[Addresses]:
    """The port that was asked for, and free ones that stay ours for the block."""
    with ExitStack() as stack:
        if gateway_port == 0:
            (gateway_port,) = stack.enter_context(ports.reserved(1))
        else:
            ports.require_free(gateway_port)
        free = stack.enter_context(ports.reserved(2 * len(SERVICES)))
        hosts = [f"127.0.0.1:{port}" for port in free]
        yield Addresses(
            gateway=f"127.0.0.1:{gateway_port}",
            grpc=dict(zip(SERVICES, hosts, strict=False)),
            metrics=dict(zip(SERVICES, hosts[len(SERVICES) :], strict=True)),
        )


@asynccontextmanager
async def _ticking(clock: Clock) -> AsyncIterator[None]:
    task = asyncio.create_task(clock.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
