"""What the manifests are made of."""

from __future__ import annotations

from typing import Any

Manifest = dict[str, Any]

IMAGE = "shoptrail"
ENVOY_IMAGE = "envoyproxy/envoy:distroless-v1.40.0"
# A user that owns nothing, the same as in the image.
_NOBODY = 65532
TLS = "/etc/shoptrail/tls"
IDENTITY = "shoptrail/identity"
"""The label of pods that says whose certificate they have."""


def manifest(api: str, kind: str, name: str, **fields: Any) -> Manifest:
    """A resource."""
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **fields}


def labels(process: str) -> dict[str, str]:
    """What a pod of the process is found by."""
    return {
        "app.kubernetes.io/name": process,
        "app.kubernetes.io/part-of": "shoptrail",
        IDENTITY: process,
    }


def of_process(process: str) -> Manifest:
    """A selector of the process's pods."""
    return {"matchLabels": {"app.kubernetes.io/name": process}}


def container(
    name: str,
    image: str,
    arguments: list[str],
    *,
    cpu: str,
    memory: str,
    **fields: Any,
) -> Manifest:
    """A container that may do nothing but compute, connect, and write to its mounts."""
    return {
        "name": name,
        "image": image,
        "args": arguments,
        # No limit of processor time: a throttled pod is late where an idle core stands by.
        "resources": {
            "requests": {"cpu": cpu, "memory": memory},
            "limits": {"memory": memory},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        **fields,
    }


def pod(identity: str, *, labels: dict[str, str], **fields: Any) -> Manifest:
    """A pod template with the identity's certificate at hand."""
    return {
        "metadata": {"labels": labels},
        "spec": {
            "serviceAccountName": identity,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _NOBODY,
                "runAsGroup": _NOBODY,
                "fsGroup": _NOBODY,
                # Else the kubelet goes through all files of a disk before each start.
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            **fields,
        },
    }


def tls_volume(identity: str) -> Manifest:
    """The certificate that cert-manager keeps fresh. The kubelet replaces the files."""
    return {
        "name": "tls",
        "secret": {"secretName": f"{identity}-tls", "defaultMode": 0o440},
    }


TLS_MOUNT = {"name": "tls", "mountPath": TLS, "readOnly": True}


def tls_variables(prefix: str) -> list[Manifest]:
    """Where the process finds its certificate."""
    files = {"CERTIFICATE": "tls.crt", "KEY": "tls.key", "AUTHORITY": "ca.crt"}
    return [
        {"name": f"{prefix}_TLS_{name}", "value": f"{TLS}/{file}"} for name, file in files.items()
    ]
