"""Every RPC of every service, called as every identity and as none, with and without scopes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from common.access import methods_of, path_of, rule_of
from common.tls import Certificates
from deploy.access_table import PAGE, describe_access
from gateway.transcoding import SERVICES, http_methods
from services.keys.grants import grantable_scopes
from services.keys.key_text import Kind
from tests.conftest import IDENTITIES, Connect, Serving, key_metadata
from tests.gateway.conftest import FakeService
from tests.services.keys.conftest import refusal_of

METHODS = [method for service in SERVICES for method in methods_of(service)]
STORE, OTHER_STORE = "sto_01h455vb4pex5vsknk084sn02q", "sto_01h455vb4pex5vsknk084sn02r"


@pytest.fixture
async def connect(serving: Serving) -> AsyncIterator[Connect]:
    """All services at one address, behind what production puts before them."""
    fakes = [FakeService(service) for service in SERVICES]

    def register(server: grpc.aio.Server) -> None:
        for fake in fakes:
            fake.add_to(server)

    async with serving(SERVICES, register) as connect:
        yield connect


def call(
    channel: grpc.aio.Channel,
    method: MethodDescriptor,
    metadata: tuple[tuple[str, str], ...] = (),
    **fields: Any,
) -> grpc.aio.UnaryUnaryCall[Any, Any]:
    request_class = GetMessageClass(method.input_type)
    bound = channel.unary_unary(
        path_of(method),
        request_serializer=request_class.SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    return bound(request_class(**fields), timeout=5, metadata=metadata)


@pytest.mark.parametrize("identity", IDENTITIES)
async def test_an_identity_gets_through_where_a_rule_names_it_and_nowhere_else(
    connect: Connect, identity: str
) -> None:
    for method in METHODS:
        rule = rule_of(method)
        if identity not in rule.callers:
            refusal = await refusal_of(call(connect(identity), method))
            assert refusal.reason == "CALLER_NOT_ALLOWED", method.full_name
        elif identity == "client":
            refusal = await refusal_of(call(connect(identity), method))
            assert refusal.reason == "KEY_MISSING", method.full_name
        elif identity == "gateway" and rule.scopes:
            refusal = await refusal_of(call(connect(identity), method))
            assert refusal.reason == "SCOPE_MISSING", method.full_name
        else:
            await call(connect(identity), method)


async def test_without_a_certificate_of_the_mesh_nobody_gets_through(
    connect: Connect, certificates: Mapping[str, Certificates]
) -> None:
    authority = certificates["gateway"].authority
    async with (
        grpc.aio.secure_channel(
            connect.address, grpc.ssl_channel_credentials(root_certificates=authority)
        ) as unknown,
        grpc.aio.insecure_channel(connect.address) as plain,
    ):
        for channel in (unknown, plain):
            outcomes = await asyncio.gather(
                *(call(channel, method) for method in METHODS), return_exceptions=True
            )
            assert all(isinstance(outcome, grpc.aio.AioRpcError) for outcome in outcomes)


async def test_a_key_gets_through_with_all_scopes_of_the_rule_and_not_with_one_less(
    connect: Connect,
) -> None:
    gateway = connect("gateway")
    for method in METHODS:
        rule = rule_of(method)
        if "gateway" not in rule.callers:
            continue
        await call(gateway, method, key_metadata(*rule.scopes))
        for lacking in rule.scopes:
            others = set(rule.scopes) - {lacking}
            refusal = await refusal_of(call(gateway, method, key_metadata(*others, "other:scope")))
            assert refusal.metadata == {"scope": lacking}, method.full_name


async def test_only_the_gateway_is_believed_what_a_key_may_do(connect: Connect) -> None:
    for method in METHODS:
        if "client" in rule_of(method).callers:
            claimed = key_metadata(*rule_of(method).scopes)
            refusal = await refusal_of(call(connect("client"), method, claimed))
            assert refusal.reason == "KEY_MISSING", method.full_name
            shown = (*claimed, ("authorization", "Bearer sk_live_unknown"))
            refusal = await refusal_of(call(connect("client"), method, shown))
            assert refusal.reason == "KEY_NOT_VALID", method.full_name


def test_what_a_key_may_read_over_http_it_may_read_directly() -> None:
    for service in ("shoptrail.query.v1.Query", "shoptrail.ingest.v1.Ingest"):
        for method in methods_of(service):
            rule = rule_of(method)
            if rule.scopes in (("reports:read",), ("events:read",)):
                assert rule.callers >= {"gateway", "back-office", "client"}, method.full_name


async def test_a_key_of_one_store_opens_no_other_by_any_rpc(connect: Connect) -> None:
    gateway = connect("gateway")
    checked = 0
    for method in METHODS:
        rule = rule_of(method)
        if "gateway" not in rule.callers or "store_uid" not in method.input_type.fields_by_name:
            continue
        assert rule.scopes, f"{method.full_name} serves a store's rows to keys without a scope"
        metadata = key_metadata(*rule.scopes, store_uid=STORE)
        await call(gateway, method, metadata, store_uid=STORE)
        for store_uid in (OTHER_STORE, "", STORE.upper(), f"{STORE} "):
            refusal = await refusal_of(call(gateway, method, metadata, store_uid=store_uid))
            assert refusal.reason == "WRONG_STORE", method.full_name
        checked += 1
    assert checked > 10


def test_every_scope_that_a_rule_asks_for_can_be_granted() -> None:
    asked = {scope for method in METHODS for scope in rule_of(method).scopes}

    assert asked <= set(grantable_scopes(Kind.SECRET, of_store=False) or ())


def test_every_http_route_asks_for_a_scope() -> None:
    assert all(rule_of(method.rpc).scopes for method in http_methods())


def test_the_page_about_access_says_what_the_rules_say() -> None:
    assert PAGE.read_text() == describe_access(), "run `make access`"
