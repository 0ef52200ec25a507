"""Finds what manifests refer to and nobody makes; schemas can't see that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Manifest = dict[str, Any]

# Made by hand or by others before a release: docs/deployment.md says how.
_GIVEN = {("Secret", "public-tls"), ("ConfigMap", "database-authority")}
REPLICATED = ("Deployment", "StatefulSet")
CLAIMS = "volumeClaimTemplates"


def find_dangling(manifests: Iterable[Manifest]) -> Iterator[str]:
    """A sentence for each reference to what isn't there, and each selector that selects nothing."""
    manifests = list(manifests)
    there = {(each["kind"], each["metadata"]["name"]) for each in manifests} | _GIVEN
    for each in manifests:
        if each["kind"] == "ExternalSecret":
            there.add(("Secret", each["spec"]["target"]["name"]))
        if each["kind"] == "Certificate":
            there.add(("Secret", each["spec"]["secretName"]))
    pods = dict(_templates(manifests))
    for name, template in pods.items():
        for reference in _references(template["spec"]):
            if reference not in there:
                yield f"{name} wants {' '.join(reference)}, which nobody makes"
    for each in manifests:
        for mount in _mounts_of_nothing(each):
            yield f"{each['kind']} {each['metadata']['name']} mounts {mount}, which is no volume"
        if each["kind"] == "StatefulSet":
            service = ("Service", each["spec"]["serviceName"])
            if service not in there:
                yield f"StatefulSet {each['metadata']['name']} wants {' '.join(service)}"
    for each in manifests:
        name = f"{each['kind']} {each['metadata']['name']}"
        selector = _selector(each)
        if selector and not any(
            selector.items() <= template["metadata"]["labels"].items() for template in pods.values()
        ):
            yield f"{name} selects no pod"
        if each["kind"] == "HorizontalPodAutoscaler":
            target = each["spec"]["scaleTargetRef"]
            if (target["kind"], target["name"]) not in there:
                yield f"{name} scales nothing"
        if each["kind"] in REPLICATED and "replicas" in each["spec"]:
            yield f"{name} and its scaler would fight over the number of replicas"


def _templates(manifests: Iterable[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for each in manifests:
        name = f"{each['kind']} {each['metadata']['name']}"
        template = template_of(each)
        if template:
            yield name, template


def template_of(manifest: Manifest) -> Manifest | None:
    """The pods that a resource makes, if it makes any."""
    if manifest["kind"] in (*REPLICATED, "Job"):
        template: Manifest = manifest["spec"]["template"]
        return template
    if manifest["kind"] == "CronJob":
        template = manifest["spec"]["jobTemplate"]["spec"]["template"]
        return template
    return None


def _mounts_of_nothing(manifest: Manifest) -> set[str]:
    template = template_of(manifest)
    if not template:
        return set()
    spec = template["spec"]
    volumes = {volume["name"] for volume in spec.get("volumes", ())}
    volumes |= {claim["metadata"]["name"] for claim in manifest["spec"].get(CLAIMS, ())}
    containers = (*spec.get("initContainers", ()), *spec["containers"])
    mounted = {mount["name"] for each in containers for mount in each.get("volumeMounts", ())}
    return mounted - volumes


def _references(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "ServiceAccount", spec["serviceAccountName"]
    for volume in spec.get("volumes", ()):
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        for source in container.get("envFrom", ()):
            yield "Secret", source["secretRef"]["name"]


def _selector(manifest: Manifest) -> dict[str, str]:
    spec = manifest.get("spec", {})
    if manifest["kind"] == "Service":
        selector: dict[str, str] = spec.get("selector", {})
        return selector
    if manifest["kind"] == "NetworkPolicy":
        return dict(spec["podSelector"].get("matchLabels", {}))
    if manifest["kind"] in ("PodDisruptionBudget", *REPLICATED):
        return dict(spec["selector"]["matchLabels"])
    return {}
