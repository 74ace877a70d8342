"""Versions of the API that are on their way out: the warning that a request for one gets."""

from __future__ import annotations

from kitlib.lab.api.schema import Resource

_SINCE = 19
"""The first minor version whose API server warns."""

# group/version  deprecated  gone  replacement  kinds (none: every kind of it)
_TABLE = """
admissionregistration.k8s.io/v1beta1 16 22 admissionregistration.k8s.io/v1
apiextensions.k8s.io/v1beta1 16 22 apiextensions.k8s.io/v1
apiregistration.k8s.io/v1beta1 19 22 apiregistration.k8s.io/v1
authentication.k8s.io/v1beta1 19 22 authentication.k8s.io/v1
authorization.k8s.io/v1beta1 19 22 authorization.k8s.io/v1
autoscaling/v2beta1 22 25 autoscaling/v2
autoscaling/v2beta2 23 26 autoscaling/v2
batch/v1beta1 21 25 batch/v1
certificates.k8s.io/v1beta1 19 22 certificates.k8s.io/v1
coordination.k8s.io/v1beta1 19 22 coordination.k8s.io/v1
discovery.k8s.io/v1beta1 21 25 discovery.k8s.io/v1
events.k8s.io/v1beta1 19 25 events.k8s.io/v1
extensions/v1beta1 14 22 networking.k8s.io/v1
networking.k8s.io/v1beta1 19 22 networking.k8s.io/v1
node.k8s.io/v1beta1 22 25 node.k8s.io/v1
policy/v1beta1 21 25 policy/v1 PodDisruptionBudget
policy/v1beta1 21 25 - PodSecurityPolicy
rbac.authorization.k8s.io/v1beta1 17 22 rbac.authorization.k8s.io/v1
scheduling.k8s.io/v1beta1 14 22 scheduling.k8s.io/v1
storage.k8s.io/v1beta1 19 22 storage.k8s.io/v1 StorageClass CSIDriver CSINode VolumeAttachment
"""


def warning(resource: Resource, minor: int) -> str:
    """Return what 1.`minor` warns of in a request for a resource, or nothing."""
    if minor < _SINCE:
        return ""
    for line in _TABLE.strip().splitlines():
        version, deprecated, gone, replacement, *kinds = line.split()
        if version != resource.api_version or (kinds and resource.kind not in kinds):
            continue
        if minor < int(deprecated):
            return ""
        text = (
            f"{version} {resource.kind} is deprecated in v1.{deprecated}+, unavailable in "
            f"v1.{gone}+"
        )
        return text if replacement == "-" else f"{text}; use {replacement} {resource.kind}"
    return ""
