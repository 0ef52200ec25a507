"""What a sidecar lets in and carries out: who may call whom, and what becomes of failures."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from common.access import methods_of, path_of, rule_of
from common.client import open_channel
from common.context import FORWARDED_CERTIFICATE, KEY_SCOPES, KEY_UID, get_call
from common.errors import DependencyUnavailable
from common.tls import Certificates
from deploy.calls import SERVICES, spiffe_id
from deploy.envoy.settings import EGRESS_PORTS, MESH_PORT
from deploy.local.certificates import CertificateFiles, issue_certificates
from shoptrail.ingest.v1 import ingest_pb2, ingest_pb2_grpc
from shoptrail.keys.v1 import keys_pb2, keys_pb2_grpc
from tests.conftest import IDENTITIES
from tests.deploy.envoy.conftest import Street
from tests.deploy.envoy.pods import Pod, eventually


@pytest.fixture(scope="module")
def callers(standing_street: Street) -> Mapping[str, Pod]:
    """A pod without a proxy for each identity."""
    return {identity: standing_street.pods.new(identity) for identity in IDENTITIES}


async def status_of(call: Any) -> tuple[grpc.StatusCode, str]:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("identity", IDENTITIES)
async def test_a_proxy_lets_an_identity_call_what_a_rule_names_it_for_and_nothing_else(
    street: Street, callers: Mapping[str, Pod], identity: str, service: str
) -> None:
    allowed = denied = 0
    async with street.connect(callers[identity], service) as channel:
        for contract in (service.capitalize(), "Maintenance"):
            for method in methods_of(f"shoptrail.{contract.lower()}.v1.{contract}"):
                request = GetMessageClass(method.input_type)
                call = channel.unary_unary(
                    path_of(method),
                    request_serializer=request.SerializeToString,
                    response_deserializer=GetMessageClass(method.output_type).FromString,
                )
                scopes = ((KEY_UID, "key_1"), (KEY_SCOPES, ",".join(rule_of(method).scopes)))
                code, said = await status_of(call(request(), timeout=5, metadata=scopes))
                if identity in rule_of(method).callers:
                    # A client is asked for its key, by the service.
                    expected = "UNAUTHENTICATED" if identity == "client" else "OK"
                    assert code is grpc.StatusCode[expected], (method.full_name, said)
                    allowed += 1
                else:
                    # Of those that may call nothing here, TLS itself refuses the certificate.
                    assert code in (
                        grpc.StatusCode.PERMISSION_DENIED,
                        grpc.StatusCode.UNAVAILABLE,
                    ), method.full_name
                    denied += 1
                    if code is grpc.StatusCode.UNAVAILABLE:
                        break  # It is the connection, for each of them.
    assert allowed or denied
    seen = {call.identity for _, _, call in street.mesh.services[service].calls}
    seen |= {call.identity for _, _, call in street.mesh.jobs[service].calls}
    assert seen <= {identity}, "the service took the caller for another"


async def test_nobody_gets_in_without_a_certificate_that_the_authority_signed(
    street: Street, tmp_path: Path
) -> None:
    forged = issue_certificates(tmp_path / "forged", ["gateway"], now=datetime.now(UTC))["gateway"]
    real = street.gateway.certificates()
    address = f"{street.services['ingest'].address}:{MESH_PORT}"
    impostor = Certificates(
        certificate=forged.certificate.read_bytes(),
        key=forged.key.read_bytes(),
        authority=real.authority,
    )
    nobody = grpc.ssl_channel_credentials(root_certificates=real.authority)
    options = [("grpc.ssl_target_name_override", "ingest")]

    for channel in (
        grpc.aio.secure_channel(address, nobody, options=options),
        grpc.aio.insecure_channel(address),
        open_channel(address, "shoptrail.ingest.v1.Ingest", "ingest", impostor),
    ):
        async with channel:
            call = ingest_pb2_grpc.IngestStub(channel).Append(ingest_pb2.AppendRequest(), timeout=2)
            code, _ = await status_of(call)
            assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert not street.mesh.ingest.calls


async def test_nobody_can_say_that_it_is_another(
    street: Street, callers: Mapping[str, Pod]
) -> None:
    forged = ((FORWARDED_CERTIFICATE, f"URI={spiffe_id('gateway')}"),)
    query = callers["query"]
    async with street.connect(query, "ingest") as channel:
        stub = ingest_pb2_grpc.IngestStub(channel)
        await stub.ReadLog(ingest_pb2.ReadLogRequest(), timeout=5, metadata=forged)
        refused, _ = await status_of(
            stub.Append(ingest_pb2.AppendRequest(), timeout=5, metadata=forged)
        )
    # Nor by going around the proxy: the service believes its own certificate only.
    direct = open_channel(
        street.services["ingest"].application,
        "shoptrail.ingest.v1.Ingest",
        "ingest",
        query.certificates(),
    )
    async with direct:
        stub = ingest_pb2_grpc.IngestStub(direct)
        await stub.ReadLog(ingest_pb2.ReadLogRequest(), timeout=5, metadata=forged)
        refused_directly, _ = await status_of(
            stub.Append(ingest_pb2.AppendRequest(), timeout=5, metadata=forged)
        )

    assert [call.identity for _, _, call in street.mesh.ingest.calls] == ["query", "query"]
    assert refused is refused_directly is grpc.StatusCode.PERMISSION_DENIED


async def test_only_its_own_process_gets_into_a_proxy_on_the_way_out(
    street: Street, callers: Mapping[str, Pod]
) -> None:
    address = f"{street.gateway.address}:{EGRESS_PORTS['keys']}"
    channel = open_channel(
        address,
        "shoptrail.keys.v1.Keys",
        "gateway",
        callers["query"].certificates(),
    )
    async with channel:
        call = keys_pb2_grpc.KeysStub(channel).VerifyKey(keys_pb2.VerifyKeyRequest(), timeout=2)
        code, _ = await status_of(call)

    assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert not street.mesh.keys.calls


async def test_a_service_that_is_not_who_it_should_be_is_told_nothing(street: Street) -> None:
    gateway = street.pods.new("gateway")
    # Whoever can change the mesh's names: Ingest's leads to Keys.
    hosts = {"ingest": (street.services["keys"].address,)}
    async with street.pods.proxied(gateway, hosts):
        channel = egress(gateway, "ingest")
        async with channel:
            stub = ingest_pb2_grpc.IngestStub(channel)
            code, said = await status_of(stub.Append(ingest_pb2.AppendRequest(), timeout=3))

            async def refused() -> bool:
                statistics = await gateway.statistics()
                return statistics["cluster.ingest.ssl.fail_verify_san"] > 0

            await eventually(refused)

    assert code is grpc.StatusCode.UNAVAILABLE, said
    assert not street.mesh.keys.calls


async def test_what_may_not_be_repeated_is_not_and_the_rest_is_at_one_layer(
    street: Street,
) -> None:
    calls = {"CreateKey": 0, "VerifyKey": 0}

    def fail(method: str) -> Any:
        async def handle(request: Any) -> Any:
            calls[method] += 1
            raise DependencyUnavailable

        return handle

    street.mesh.keys.answers.update({method: fail(method) for method in calls})
    async with egress(street.gateway, "keys") as channel:
        stub = keys_pb2_grpc.KeysStub(channel)
        metadata = ((KEY_UID, "key_1"), (KEY_SCOPES, "keys:write"))
        once, _ = await status_of(
            stub.CreateKey(keys_pb2.CreateKeyRequest(), timeout=5, metadata=metadata)
        )
        often, _ = await status_of(stub.VerifyKey(keys_pb2.VerifyKeyRequest(), timeout=5))

    assert once is often is grpc.StatusCode.UNAVAILABLE
    assert calls == {"CreateKey": 1, "VerifyKey": 5}


async def test_a_deadline_travels_to_the_service_and_ends_the_call(street: Street) -> None:
    ended = asyncio.Event()
    remaining: list[float] = []

    async def hang(request: Any) -> Any:
        left = get_call().remaining_seconds()
        assert left is not None
        remaining.append(left)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ended.set()
            raise

    street.mesh.keys.answers["WatchRevisions"] = hang
    began = time.monotonic()
    async with egress(street.gateway, "keys") as channel:
        stub = keys_pb2_grpc.KeysStub(channel)
        code, _ = await status_of(
            stub.WatchRevisions(keys_pb2.WatchRevisionsRequest(), timeout=0.4)
        )

    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - began < 3
    assert 0 < remaining[0] <= 0.4
    await asyncio.wait_for(ended.wait(), 5)


async def test_certificates_are_replaced_while_calls_go_on(street: Street, tmp_path: Path) -> None:
    ingest = street.services["ingest"]
    shown = await serial_of(ingest)
    failures: list[str] = []
    stop = asyncio.Event()

    async def call_on() -> None:
        async with egress(street.gateway, "ingest") as channel:
            stub = ingest_pb2_grpc.IngestStub(channel)
            while not stop.is_set():
                code, said = await status_of(stub.Append(ingest_pb2.AppendRequest(), timeout=5))
                if code is not grpc.StatusCode.OK:
                    failures.append(said)

    calling = asyncio.create_task(call_on())
    for pod in (ingest, street.gateway):
        pod.mount(renew(street, pod, tmp_path))

    async def replaced() -> bool:
        return await serial_of(ingest) != shown

    await eventually(replaced)
    # The process behind it and the caller's proxy have new ones as well: a new connection tells.
    async with egress(street.gateway, "ingest") as channel:
        await ingest_pb2_grpc.IngestStub(channel).Append(ingest_pb2.AppendRequest(), timeout=5)
    stop.set()
    await calling

    assert not failures
    assert {call.identity for _, _, call in street.mesh.ingest.calls} == {"gateway"}


def renew(street: Street, pod: Pod, directory: Path) -> CertificateFiles:
    """Another certificate of the same identity, by the same authority."""
    held = street.pods.issued[pod.identity]
    workshop = directory / pod.identity
    workshop.mkdir()
    for name in ("authority.pem", "authority.key"):
        (workshop / name).write_bytes((held.authority.parent / name).read_bytes())
    return issue_certificates(workshop, [pod.identity], now=datetime.now(UTC))[pod.identity]


async def serial_of(pod: Pod) -> str:
    """The serial number of the certificate that new connections to the pod are shown."""
    context = ssl.create_default_context(cafile=str(pod.tls / "ca.crt"))
    context.check_hostname = False
    context.load_cert_chain(pod.tls / "tls.crt", pod.tls / "tls.key")
    _, writer = await asyncio.open_connection(pod.address, MESH_PORT, ssl=context)
    try:
        return str(writer.get_extra_info("peercert")["serialNumber"])
    finally:
        writer.close()


def egress(pod: Pod, service: str) -> grpc.aio.Channel:
    """A channel as the pod's own process opens it."""
    return open_channel(
        f"{pod.address}:{EGRESS_PORTS[service]}",
        f"shoptrail.{service}.v1.{service.capitalize()}",
        service,
        pod.certificates(),
        proxy=pod.identity,
    )
