"""What Ingest accepted while its database was away outlives the pod that accepted it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

import pytest

from deploy.gates.conftest import OVERLAYS, Manifest
from deploy.gates.test_kubernetes import find

_UNITS = {"Mi": 1024**2, "Gi": 1024**3}
Built = Mapping[str, list[Manifest]]


def bytes_of(quantity: str) -> int:
    return int(quantity[:-2]) * _UNITS[quantity[-2:]]


def check_disks(manifests: list[Manifest]) -> None:
    """Raises `AssertionError` or `KeyError` if a journal could be lost, or find no room."""
    replicas = find(manifests, "StatefulSet", "ingest")["spec"]
    pod = replicas["template"]["spec"]
    (container,) = pod["containers"]
    variables = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    directory = PurePosixPath(variables["INGEST_JOURNAL_DIRECTORY"])
    (mount,) = (
        each for each in container["volumeMounts"] if directory.is_relative_to(each["mountPath"])
    )
    (claim,) = replicas["volumeClaimTemplates"]
    # A volume of the pod under the claim's name would be taken in its stead.
    assert mount["name"] == claim["metadata"]["name"]
    assert mount["name"] not in {volume["name"] for volume in pod["volumes"]}
    assert not mount.get("readOnly")
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    size = bytes_of(claim["spec"]["resources"]["requests"]["storage"])
    # What can't be read is copied beside the journal before it is removed.
    assert size > 2 * int(variables["INGEST_JOURNAL_BYTES"])
    # The disk's own directory is root's, in which another user can make one only by the group.
    assert directory != PurePosixPath(mount["mountPath"])
    context = pod["securityContext"]
    assert context["fsGroup"] == context["runAsGroup"] == context["runAsUser"] != 0

    assert replicas["persistentVolumeClaimRetentionPolicy"] == {
        "whenDeleted": "Retain",
        "whenScaled": "Retain",
    }
    assert replicas["podManagementPolicy"] == "Parallel"
    assert replicas["minReadySeconds"] > container["readinessProbe"]["periodSeconds"] * 2
    scaler = find(manifests, "HorizontalPodAutoscaler", "ingest")["spec"]
    assert scaler["scaleTargetRef"]["kind"] == "StatefulSet"
    assert scaler["behavior"]["scaleDown"]["selectPolicy"] == "Disabled"
    assert find(manifests, "PodDisruptionBudget", "ingest")["spec"]["maxUnavailable"] == 1
    assert find(manifests, "Service", "ingest")["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_journal_is_on_a_disk_that_waits_for_its_replica(built: Built, overlay: str) -> None:
    check_disks(built[overlay])


def ingest_of(manifests: list[Manifest]) -> Manifest:
    replicas: Manifest = find(manifests, "StatefulSet", "ingest")["spec"]
    return replicas


def keep_the_journal_in_the_pod(manifests: list[Manifest]) -> None:
    volumes = ingest_of(manifests)["template"]["spec"]["volumes"]
    volumes.append({"name": "journal", "emptyDir": {}})


def keep_the_journal_elsewhere(manifests: list[Manifest]) -> None:
    (container,) = ingest_of(manifests)["template"]["spec"]["containers"]
    for variable in container["env"]:
        if variable["name"] == "INGEST_JOURNAL_DIRECTORY":
            variable["value"] = "/tmp/journal"  # noqa: S108 - the fault


def use_the_whole_disk(manifests: list[Manifest]) -> None:
    (claim,) = ingest_of(manifests)["volumeClaimTemplates"]
    claim["spec"]["resources"]["requests"]["storage"] = "1Gi"


def share_a_disk(manifests: list[Manifest]) -> None:
    (claim,) = ingest_of(manifests)["volumeClaimTemplates"]
    claim["spec"]["accessModes"] = ["ReadWriteMany"]


def lock_the_disk(manifests: list[Manifest]) -> None:
    del ingest_of(manifests)["template"]["spec"]["securityContext"]["fsGroup"]


def remove_disks_with_replicas(manifests: list[Manifest]) -> None:
    ingest_of(manifests)["persistentVolumeClaimRetentionPolicy"]["whenScaled"] = "Delete"


def remove_disks_with_everything(manifests: list[Manifest]) -> None:
    ingest_of(manifests)["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] = "Delete"


def take_replicas_away(manifests: list[Manifest]) -> None:
    del find(manifests, "HorizontalPodAutoscaler", "ingest")["spec"]["behavior"]["scaleDown"][
        "selectPolicy"
    ]


def wait_for_each(manifests: list[Manifest]) -> None:
    del ingest_of(manifests)["podManagementPolicy"]


@pytest.mark.parametrize(
    "spoil",
    [
        keep_the_journal_in_the_pod,
        keep_the_journal_elsewhere,
        use_the_whole_disk,
        share_a_disk,
        lock_the_disk,
        remove_disks_with_replicas,
        remove_disks_with_everything,
        take_replicas_away,
        wait_for_each,
    ],
)
def test_a_planted_loss_is_found(built: Built, spoil: Callable[[list[Manifest]], None]) -> None:
    manifests = built["production"]
    spoil(manifests)

    with pytest.raises((AssertionError, KeyError)):
        check_disks(manifests)
