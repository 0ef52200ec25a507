"""A whole mesh of real processes, with a network to its database that can be broken."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from common.client import open_channel
from common.tls import Certificates
from common.uid import parse_uid
from deploy.local import environment, mariadb, ports, redis
from deploy.local.certificates import CertificateFiles, issue_certificates
from deploy.local.environment import IDENTITIES, SERVICES, Addresses
from deploy.local.gateway_client import GatewayClient, GatewayUnreachableError
from deploy.local.mariadb import MariadbServer
from deploy.local.processes import Child, Program, kept_running, run_to_end, together
from deploy.local.redis import RedisServer
from shoptrail.keys.v1 import api_key_pb2, keys_pb2, keys_pb2_grpc
from tests.drills.faults.shoppers import Connection
from tests.drills.proxy import Proxy, proxied

_READY_SECONDS = 60
_STOP_SECONDS = 6.0


@dataclass(frozen=True, slots=True)
class Shop:
    """A store with its keys."""

    store_uid: str
    write_key: str
    secret_key: str


@dataclass(slots=True)
class Stage:
    """Everything that a drill may break."""

    gateway: str
    """Host and port."""
    children: dict[str, Child]
    """The gateway, and each service by its name."""
    programs: Mapping[str, Program]
    """What those run."""
    mariadb: MariadbServer
    redis: RedisServer
    network: Proxy
    """Between Ingest and its database."""
    other_network: Proxy
    """Between the other services and theirs."""
    root: AsyncEngine
    """Ingest's database, past the networks, as who may do anything there."""
    operator: CertificateFiles
    keys_address: str
    journal_directory: Path
    fault_count: int = 0

    @property
    def port(self) -> int:
        """The gateway's."""
        return int(self.gateway.rpartition(":")[2])

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a process a signal. It is started again if it ends."""
        child = {"mariadb": self.mariadb.child, "redis": self.redis.child, **self.children}[name]
        self.fault_count += 1
        if child.pid is not None:
            try:
                os.kill(child.pid, number)
            except ProcessLookupError:
                return  # It ended before, and isn't back yet.

    def memory_bytes(self, name: str) -> int:
        """How much memory a process has now."""
        status = Path(f"/proc/{self.children[name].pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    async def pause(self, name: str, seconds: float) -> None:
        """Stop a process in its tracks for a while."""
        child = {"mariadb": self.mariadb.child, "redis": self.redis.child, **self.children}[name]
        pid = child.pid
        self.signal(name, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        try:
            if pid is not None:
                os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            return

    @asynccontextmanager
    async def replaced(
        self, name: str, *, module: str = "", variables: Mapping[str, str] | None = None
    ) -> AsyncIterator[Child]:
        """Have another program play a part for the block, or the same with other variables."""
        own = self.children[name]
        program = self.programs[name]
        arguments = (sys.executable, "-m", module) if module else program.arguments
        understudy = Child(
            replace(
                program,
                arguments=arguments,
                environment={**program.environment, **(variables or {})},
            )
        )
        await own.stop(patience_seconds=_STOP_SECONDS)
        self.children[name] = understudy
        try:
            async with kept_running(understudy, patience_seconds=_STOP_SECONDS):
                await self.wait_until_served()
                yield understudy
        finally:
            self.children[name] = own
            await own.start()
            await self.wait_until_served()

    async def wait_for_mariadb(self) -> None:
        """Return once the database answers."""
        async with asyncio.timeout(_READY_SECONDS):
            while True:
                try:
                    async with self.root.connect():
                        return
                except OperationalError:
                    await asyncio.sleep(0.05)

    async def wait_until_served(self) -> None:
        """Return once an event has passed all whom it has to pass."""
        shop = await self.new_shop()
        connection = Connection(self.port, shop.write_key)
        async with asyncio.timeout(_READY_SECONDS):
            status = 0
            while status not in (200, 400):
                status, _, _ = await connection.post("/v1/track", b"{}")
                await asyncio.sleep(0.02)
        connection.close()

    async def new_shop(self) -> Shop:
        """Make a store and its keys, as the operator does."""
        certificates = Certificates(
            certificate=self.operator.certificate.read_bytes(),
            key=self.operator.key.read_bytes(),
            authority=self.operator.authority.read_bytes(),
        )
        async with open_channel(
            self.keys_address, "shoptrail.keys.v1.Keys", "keys", certificates
        ) as channel:
            keys = keys_pb2_grpc.KeysStub(channel)
            request = keys_pb2.CreateStoreRequest(display_name="Drill")
            store = (await keys.CreateStore(request, timeout=20, wait_for_ready=True)).store
            texts = [
                (
                    await keys.CreateKey(
                        keys_pb2.CreateKeyRequest(store_uid=store.uid, kind=kind), timeout=20
                    )
                ).text
                for kind in (api_key_pb2.KEY_KIND_PUBLISHABLE, api_key_pb2.KEY_KIND_SECRET)
            ]
        return Shop(store.uid, *texts)

    async def wait_until_ready(self) -> None:
        """Return once the gateway has seen all services."""
        client = GatewayClient(self.gateway)
        async with asyncio.timeout(_READY_SECONDS):
            while True:
                try:
                    if (await client.get("/readyz")).status == 200:
                        return
                except GatewayUnreachableError:
                    pass  # Not up yet.
                for child in self.children.values():
                    child.require_alive()
                await asyncio.sleep(0.05)

    async def wait_until_drained(self) -> None:
        """Return once no event waits in a journal."""
        async with asyncio.timeout(90):
            while list(self.journal_directory.glob("*/*.journal")):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def count_names(self, shop: Shop) -> Mapping[str, int]:
        """How many events of each name Ingest has."""
        statement = text("SELECT name, COUNT(*) FROM events WHERE store_uid = :store GROUP BY name")
        async with self.root.connect() as connection:
            rows = await connection.execute(statement, {"store": parse_uid("sto", shop.store_uid)})
            return {row[0]: row[1] for row in rows}


@asynccontextmanager
async def staged(
    directory: Path,
    *,
    data_directory: Path | None = None,
    database_options: Sequence[str] = (),
) -> AsyncIterator[Stage]:
    """A mesh for the block, its files in the directory, MariaDB's elsewhere if told.

    `database_options` are more of MariaDB's own.
    """
    async with AsyncExitStack() as stack:
        secrets = environment.keep_secrets(directory / "secrets.json")
        certificates = issue_certificates(directory / "tls", IDENTITIES, now=datetime.now(UTC))
        server, redis_server = await asyncio.gather(
            stack.enter_async_context(
                mariadb.running(
                    data_directory or directory / "mariadb",
                    passwords=secrets.database_passwords,
                    migration_passwords=secrets.migration_passwords,
                    options=database_options,
                )
            ),
            stack.enter_async_context(redis.running(directory / "redis", secrets.redis_passwords)),
        )
        await together(
            *(
                run_to_end(
                    Program(
                        name=f"migrate-{service}",
                        arguments=(sys.executable, "-m", "common.migrate", service),
                        log=directory / f"migrate-{service}.log",
                        environment={
                            f"{service.upper()}_MIGRATION_DATABASE_URL": server.migration_url(
                                service
                            ),
                            f"{service.upper()}_GRANT_TO": server.account(service),
                        },
                    )
                )
                for service in SERVICES
            )
        )
        network = await stack.enter_async_context(proxied(server.port))
        other_network = await stack.enter_async_context(proxied(server.port))
        free = stack.enter_context(ports.reserved(2 * len(SERVICES) + 1))
        hosts = [f"127.0.0.1:{port}" for port in free]
        addresses = Addresses(
            gateway=hosts.pop(),
            grpc=dict(zip(SERVICES, hosts, strict=False)),
            metrics=dict(zip(SERVICES, hosts[len(SERVICES) :], strict=True)),
        )
        programs = {}
        for service in SERVICES:
            proxy = network if service == "ingest" else other_network
            programs[service] = _program(
                f"services.{service}",
                environment.of_service(
                    service,
                    addresses=addresses,
                    certificates=certificates[service],
                    database_url=server.url(service).replace(f":{server.port}/", f":{proxy.port}/"),
                    redis_url=redis_server.url(service),
                    data_directory=directory,
                    secrets=secrets,
                ),
                directory,
            )
        programs["gateway"] = _program(
            "gateway",
            environment.of_gateway(
                addresses,
                certificates["gateway"],
                demo_shop=directory / "demo.json",
                secrets=secrets,
            ),
            directory,
        )
        children = {name: Child(program) for name, program in programs.items()}
        root = create_async_engine(
            server.migration_url("ingest"), poolclass=NullPool, isolation_level="READ COMMITTED"
        )
        stack.push_async_callback(root.dispose)
        await stack.enter_async_context(
            kept_running(*children.values(), patience_seconds=_STOP_SECONDS)
        )
        stage = Stage(
            gateway=addresses.gateway,
            children=children,
            programs=programs,
            mariadb=server,
            redis=redis_server,
            network=network,
            other_network=other_network,
            root=root,
            operator=certificates["operator"],
            keys_address=addresses.grpc["keys"],
            journal_directory=directory / environment.JOURNAL,
        )
        await stage.wait_until_ready()
        yield stage


def _program(module: str, variables: Mapping[str, str], directory: Path) -> Program:
    name = module.rpartition(".")[2]
    return Program(
        name=name,
        arguments=(sys.executable, "-m", module),
        log=directory / f"{name}.log",
        environment={**variables, f"{name.upper()}_LOG_LEVEL": "warning"},
    )
