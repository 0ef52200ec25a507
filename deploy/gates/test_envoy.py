"""Envoy takes every file that is rendered for it, and no known trap is in them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.calls import EDGE, GATEWAY, PROCESSES
from deploy.envoy.binary import find_faults
from deploy.envoy.edge import edge_bootstrap
from deploy.envoy.render import render
from deploy.envoy.settings import ENVIRONMENTS, Environment
from deploy.envoy.sidecar import sidecar_bootstrap
from deploy.envoy.traps import find_traps
from deploy.local.certificates import issue_certificates

Config = dict[str, Any]


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Environment], Path]:
    """Makes a directory with all that the environment's files name, and the files."""
    authority = tmp_path_factory.mktemp("authority")
    issued = issue_certificates(authority, [EDGE], now=datetime.now(UTC))[EDGE]

    def make(environment: Environment) -> Path:
        directory = tmp_path_factory.mktemp(environment.name)
        for name, source in (
            ("tls.crt", issued.certificate),
            ("tls.key", issued.key),
            ("ca.crt", issued.authority),
        ):
            (directory / name).write_bytes(source.read_bytes())
        here = replace(
            environment,
            configuration=str(directory),
            certificates=str(directory),
            public_certificates=str(directory),
        )
        for name, text in render(here).items():
            (directory / name).write_text(text)
        return directory

    return make


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=lambda each: each.name)
async def test_envoy_takes_every_file(
    places: Callable[[Environment], Path], environment: Environment
) -> None:
    directory = places(environment)

    for name in (EDGE, *PROCESSES):
        path = directory / f"{name}.yaml"
        assert await find_faults(path) == "", path
        assert list(find_traps(yaml.safe_load(path.read_text()))) == []


def misspell(config: Config) -> None:
    config["static_resources"]["listeners"][0]["filter_chain"] = []


def route_nowhere(config: Config) -> None:
    routes = manager_of(config)["route_config"]["virtual_hosts"][0]["routes"]
    routes[-1]["route"]["cluster"] = "nowhere"


def lose_a_secret(config: Config) -> None:
    context = config["static_resources"]["clusters"][0]["transport_socket"]["typed_config"]
    secret = context["common_tls_context"]["tls_certificate_sds_secret_configs"][0]
    secret["sds_config"]["path_config_source"]["path"] = "/nowhere.yaml"


def want_an_unknown_filter(config: Config) -> None:
    manager_of(config)["http_filters"].insert(0, {"name": "shoptrail.filters.http.unknown"})


def use_what_is_deprecated(config: Config) -> None:
    config["static_resources"]["clusters"][0]["dns_refresh_rate"] = "2s"


@pytest.mark.parametrize(
    "spoil",
    [misspell, route_nowhere, lose_a_secret, want_an_unknown_filter, use_what_is_deprecated],
)
async def test_envoy_finds_a_planted_fault(
    places: Callable[[Environment], Path], spoil: Callable[[Config], None]
) -> None:
    path = places(ENVIRONMENTS["production"]) / f"{EDGE}.yaml"
    config = yaml.safe_load(path.read_text())
    spoil(config)
    path.write_text(yaml.safe_dump(config))

    assert await find_faults(path)


def tls_of(config: Config, *, upstream: bool) -> Config:
    if upstream:
        cluster = config["static_resources"]["clusters"][1]
        context: Config = cluster["transport_socket"]["typed_config"]
        return context
    chain = config["static_resources"]["listeners"][0]["filter_chains"][0]
    context = chain["transport_socket"]["typed_config"]
    return context


def manager_of(config: Config) -> Config:
    chain = config["static_resources"]["listeners"][0]["filter_chains"][0]
    manager: Config = chain["filters"][0]["typed_config"]
    return manager


def names_of(context: Config) -> Config:
    validation = context["common_tls_context"]["combined_validation_context"]
    found: Config = validation["default_validation_context"]
    return found


def drop_the_maximum(config: Config) -> None:
    del tls_of(config, upstream=True)["common_tls_context"]["tls_params"][
        "tls_maximum_protocol_version"
    ]


def trust_anyone(config: Config) -> None:
    names_of(tls_of(config, upstream=True))["match_typed_subject_alt_names"] = []


def let_anyone_in(config: Config) -> None:
    names_of(tls_of(config, upstream=False))["match_typed_subject_alt_names"] = [
        {"san_type": "URI", "matcher": {"prefix": "spiffe://"}}
    ]


def ask_for_no_certificate(config: Config) -> None:
    tls_of(config, upstream=False)["require_client_certificate"] = False


def remove_the_status(config: Config) -> None:
    manager_of(config)["route_config"]["virtual_hosts"][0]["response_headers_to_remove"] = [
        "grpc-status"
    ]


def read_certificates_once(config: Config) -> None:
    config["static_resources"]["secrets"] = [{"name": "certificate"}]


def wait_for_heads(config: Config) -> None:
    del manager_of(config)["request_headers_timeout"]


def retry_where_it_failed(config: Config) -> None:
    egress = config["static_resources"]["listeners"][1]
    manager = egress["filter_chains"][0]["filters"][0]["typed_config"]
    policy = manager["route_config"]["virtual_hosts"][0]["retry_policy"]
    del policy["host_selection_retry_max_attempts"]


def heed_health_late(config: Config) -> None:
    del config["static_resources"]["clusters"][1]["common_lb_config"]["update_merge_window"]


@pytest.mark.parametrize(
    "spoil",
    [
        drop_the_maximum,
        trust_anyone,
        let_anyone_in,
        ask_for_no_certificate,
        remove_the_status,
        read_certificates_once,
        wait_for_heads,
        retry_where_it_failed,
        heed_health_late,
    ],
)
def test_a_trap_that_envoy_does_not_see_is_found(spoil: Callable[[Config], None]) -> None:
    config = deepcopy(sidecar_bootstrap(ENVIRONMENTS["production"], GATEWAY))
    assert list(find_traps(config)) == []

    spoil(config)

    assert list(find_traps(config))


def test_the_edge_has_none_of_them_either() -> None:
    assert list(find_traps(edge_bootstrap(ENVIRONMENTS["production"]))) == []
