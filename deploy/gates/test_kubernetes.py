"""The manifests: valid, complete, and no more open than the rules beside the RPCs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils as schema_reader
from pydantic_settings import BaseSettings

from common.config import read_config
from common.cron.call import CallConfig
from deploy.calls import EDGE, PROCESSES, callers_of
from deploy.envoy.settings import MESH_PORT
from deploy.gates.conftest import K8S, OVERLAYS, Manifest
from deploy.gates.references import find_dangling, template_of
from deploy.gates.test_compose import CONFIGS
from deploy.k8s.jobs import jobs_of_services, schedule_of
from deploy.k8s.parts import IDENTITY

VERSION = "1.33"
# Resources of others, whose schemas Kubernetes doesn't have.
NOT_OURS = {"Certificate", "ExternalSecret", "SecretStore", "TargetGroupBinding"}
CALLERS = (
    "edge",
    "gateway",
    "ingest",
    "query",
    "keys",
    "maintenance",
    "cron",
    "operator",
    "client",
)
Built = Mapping[str, list[Manifest]]


@pytest.fixture(scope="module", autouse=True)
def schemas() -> Iterator[None]:
    """Each schema is read once, and not once for each manifest: they are megabytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema_reader, "schema_contents", cache(schema_reader.schema_contents))
        patch.setattr(schema_reader, "all_versions", cache(schema_reader.all_versions))
        yield


def validate(manifests: list[Manifest]) -> list[str]:
    """What Kubernetes' own schemas have against the manifests."""
    against = []
    for each in manifests:
        if each["kind"] in NOT_OURS:
            continue
        try:
            kubernetes_validate.validate(each, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            against.append(f"{each['kind']} {each['metadata']['name']}: {error.message}")
    return against


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_takes_all_manifests(built: Built, overlay: str) -> None:
    assert validate(built[overlay]) == []


def find(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = (
        each for each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, name)
    )
    return found


def misspell_a_field(manifests: list[Manifest]) -> None:
    find(manifests, "Deployment", "query")["spec"]["template"]["spec"]["container"] = []


def mistake_a_type(manifests: list[Manifest]) -> None:
    find(manifests, "CronJob", "keys-expire-keys")["spec"]["startingDeadlineSeconds"] = "soon"


def mistake_a_value(manifests: list[Manifest]) -> None:
    del find(manifests, "Service", "ingest")["spec"]["ports"][0]["port"]


@pytest.mark.parametrize("spoil", [misspell_a_field, mistake_a_type, mistake_a_value])
def test_the_schemas_find_a_planted_fault(
    built: Built, spoil: Callable[[list[Manifest]], None]
) -> None:
    manifests = built["production"]
    spoil(manifests)

    assert len(validate(manifests)) == 1


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_referred_to_that_nobody_makes(built: Built, overlay: str) -> None:
    assert list(find_dangling(built[overlay])) == []


def lose_a_config_map(manifests: list[Manifest]) -> None:
    manifests[:] = [
        each
        for each in manifests
        if not (each["kind"] == "ConfigMap" and each["metadata"]["name"].startswith("envoy-keys"))
    ]


def lose_a_certificate(manifests: list[Manifest]) -> None:
    manifests.remove(find(manifests, "Certificate", "cron"))


def lose_a_secret(manifests: list[Manifest]) -> None:
    manifests.remove(find(manifests, "ExternalSecret", "ingest-migration"))


def mislabel_pods(manifests: list[Manifest]) -> None:
    find(manifests, "Service", "query")["spec"]["selector"]["app.kubernetes.io/name"] = "quary"


def set_replicas(manifests: list[Manifest]) -> None:
    find(manifests, "Deployment", "edge")["spec"]["replicas"] = 2


def lose_a_disk(manifests: list[Manifest]) -> None:
    del find(manifests, "StatefulSet", "ingest")["spec"]["volumeClaimTemplates"]


def lose_a_service(manifests: list[Manifest]) -> None:
    find(manifests, "StatefulSet", "ingest")["spec"]["serviceName"] = "ingest-journals"


@pytest.mark.parametrize(
    "spoil",
    [
        lose_a_config_map,
        lose_a_certificate,
        lose_a_secret,
        mislabel_pods,
        set_replicas,
        lose_a_disk,
        lose_a_service,
    ],
)
def test_a_planted_dangling_reference_is_found(
    built: Built, spoil: Callable[[list[Manifest]], None]
) -> None:
    manifests = built["production"]
    spoil(manifests)

    assert list(find_dangling(manifests))


def may_connect(manifests: list[Manifest], caller: str, process: str) -> bool:
    """Whether the policies let a pod of the caller's identity call the process."""
    allowed = [
        rule
        for rule in find(manifests, "NetworkPolicy", process)["spec"]["ingress"]
        if any(port["port"] == MESH_PORT for port in rule["ports"])
    ]
    return any(
        peer.get("podSelector", {}).get("matchLabels") == {IDENTITY: caller}
        for rule in allowed
        for peer in rule["from"]
    )


def check_policies(manifests: list[Manifest]) -> None:
    deny = find(manifests, "NetworkPolicy", "deny-all")["spec"]
    assert deny["podSelector"] == {}
    assert set(deny["policyTypes"]) == {"Ingress", "Egress"}
    for process in PROCESSES:
        for caller in CALLERS:
            expected = caller in callers_of(process)
            assert may_connect(manifests, caller, process) is expected, (caller, process)
    for each in manifests:
        if each["kind"] != "NetworkPolicy" or each["metadata"]["name"] == "deny-all":
            continue
        for rule in each["spec"]["egress"]:
            assert rule["ports"], "a way out to every port"
            assert rule["to"], "a way out to everywhere"
        for rule in each["spec"]["ingress"]:
            assert rule["ports"]
            assert rule.get("from") or each["metadata"]["name"] == EDGE


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_may_connect_as_the_rules_have_it_and_else_not(built: Built, overlay: str) -> None:
    check_policies(built[overlay])


def open_a_door(manifests: list[Manifest]) -> None:
    policy = find(manifests, "NetworkPolicy", "keys")
    policy["spec"]["ingress"][0]["from"].append(
        {"podSelector": {"matchLabels": {IDENTITY: "edge"}}}
    )


def open_a_way_out(manifests: list[Manifest]) -> None:
    find(manifests, "NetworkPolicy", "gateway")["spec"]["egress"].append({"ports": [{"port": 443}]})


def allow_by_default(manifests: list[Manifest]) -> None:
    manifests.remove(find(manifests, "NetworkPolicy", "deny-all"))


@pytest.mark.parametrize("spoil", [open_a_door, open_a_way_out, allow_by_default])
def test_a_planted_opening_is_found(built: Built, spoil: Callable[[list[Manifest]], None]) -> None:
    manifests = built["production"]
    spoil(manifests)

    with pytest.raises((AssertionError, KeyError, ValueError)):
        check_policies(manifests)


def times_of(schedule: str) -> Iterator[datetime]:
    """When a CronJob with a schedule of ours is due, within a day."""
    minute, hour, *rest = schedule.split()
    assert rest == ["*", "*", "*"]
    for number in range(24 * 60):
        time = datetime(2026, 11, 25, tzinfo=UTC) + timedelta(minutes=number)
        if _fits(minute, time.minute) and _fits(hour, time.hour):
            yield time


def _fits(field: str, value: int) -> bool:
    if field == "*":
        return True
    if field.startswith("*/"):
        return value % int(field.removeprefix("*/")) == 0
    return value == int(field)


def check_cron_jobs(manifests: list[Manifest]) -> None:
    cron_jobs = {each["metadata"]["name"]: each for each in manifests if each["kind"] == "CronJob"}
    jobs = {
        f"{service}-{job.name}": (service, job)
        for service, listed in jobs_of_services().items()
        for job in listed
    }
    assert set(cron_jobs) == set(jobs)
    for name, (service, job) in jobs.items():
        spec = cron_jobs[name]["spec"]
        times = list(times_of(spec["schedule"]))
        assert len(times) == timedelta(days=1) / job.period
        assert all(job.is_scheduled(time) for time in times), name
        assert spec["timeZone"] == "Etc/UTC"
        assert spec["concurrencyPolicy"] == "Forbid"
        (call,) = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        assert call["args"] == ["common.cron.call", "run", service, job.name]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_job_is_called_at_each_of_its_times(built: Built, overlay: str) -> None:
    check_cron_jobs(built[overlay])


def call_at_odd_times(manifests: list[Manifest]) -> None:
    find(manifests, "CronJob", "keys-expire-keys")["spec"]["schedule"] = "2/5 * * * *"


def call_too_rarely(manifests: list[Manifest]) -> None:
    find(manifests, "CronJob", "keys-expire-keys")["spec"]["schedule"] = "0 * * * *"


def forget_a_job(manifests: list[Manifest]) -> None:
    manifests.remove(find(manifests, "CronJob", "keys-expire-keys"))


@pytest.mark.parametrize("spoil", [call_at_odd_times, call_too_rarely, forget_a_job])
def test_a_planted_fault_of_a_timetable_is_found(
    built: Built, spoil: Callable[[list[Manifest]], None]
) -> None:
    manifests = built["production"]
    spoil(manifests)

    with pytest.raises((AssertionError, ValueError)):
        check_cron_jobs(manifests)


@pytest.mark.parametrize("minutes", [7, 50, 7 * 60, 48 * 60, 0])
def test_a_period_that_cron_cannot_write_is_refused(minutes: int) -> None:
    with pytest.raises((ValueError, ZeroDivisionError)):
        schedule_of(timedelta(minutes=minutes))


@pytest.mark.parametrize("process", [*PROCESSES, "cron"])
def test_every_process_is_told_what_it_reads(
    built: Built, monkeypatch: pytest.MonkeyPatch, process: str
) -> None:
    manifests = built["production"]
    if process == "cron":
        cron_job = find(manifests, "CronJob", "keys-expire-keys")["spec"]
        pod = cron_job["jobTemplate"]["spec"]["template"]["spec"]
        config: type[BaseSettings] = CallConfig
    else:
        pod = find(manifests, kind_of(process), process)["spec"]["template"]["spec"]
        config = CONFIGS[process]
    (container,) = pod["containers"]
    variables = {each["name"]: each.get("value", "job-29401320") for each in container["env"]}
    for source in container.get("envFrom", []):
        secret = find(manifests, "ExternalSecret", source["secretRef"]["name"])
        variables |= {
            each["secretKey"]: _secret(each["secretKey"]) for each in secret["spec"]["data"]
        }
    prefix = config.model_config.get("env_prefix", "")
    for name, value in variables.items():
        assert name.removeprefix(prefix).lower() in config.model_fields, name
        monkeypatch.setenv(name, value)

    read_config(config)

    # And it would be missed.
    monkeypatch.delenv(f"{prefix}TLS_KEY")
    with pytest.raises(SystemExit):
        read_config(config)


def _secret(name: str) -> str:
    if name.endswith("PEPPERS"):
        return "1:" + "0" * 64
    return "0" * 64


def kind_of(process: str) -> str:
    return "StatefulSet" if process == "ingest" else "Deployment"


def all_pods(manifests: list[Manifest]) -> Iterator[Any]:
    for each in manifests:
        template = template_of(each)
        if template:
            yield template["spec"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_named_once_and_set_by_the_pipeline(built: Built, overlay: str) -> None:
    images = {
        container["image"]
        for pod in all_pods(built[overlay])
        for container in (*pod.get("initContainers", []), *pod["containers"])
    }

    # What the pipeline names in the overlay, and nothing that it would miss.
    (set_by_pipeline,) = yaml.safe_load(
        (K8S / "overlays" / overlay / "kustomization.yaml").read_text()
    )["images"]
    assert images == {
        f"{set_by_pipeline['newName']}:set-by-the-pipeline",
        "envoyproxy/envoy:distroless-v1.40.0",
    }
