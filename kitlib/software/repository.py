"""The community's package repositories, one for each Kubernetes minor, and their key.

https://kubernetes.io/docs/setup/production-environment/tools/kubeadm/install-kubeadm/ describes
them. The key is fetched by the machine that the kit runs on, checked against the fingerprint below
and handed to the hosts: they need neither curl nor gpg. The key itself is not part of the kit,
because it is prolonged from time to time, with the same fingerprint.
"""

from __future__ import annotations

from kitlib.params import Params
from kitlib.plugins.schema import minor

__all__ = [
    "COMMUNITY",
    "FINGERPRINT",
    "address",
    "key_address",
    "release_line",
    "wanted_fingerprint",
]

COMMUNITY = "https://pkgs.k8s.io"
FINGERPRINT = "DE15B14486CD377B9E876E1A234654DA9A296436"
"""Of the key that signs every one of the community's repositories."""


def release_line(version: str) -> str:
    """Return the repository's name for a version: `v1.34`."""
    return "v{}.{}".format(*minor(version))


def address(params: Params, kind: str) -> str:
    """Return the repository's address, with a slash at its end.

    Args:
        params: What is wanted; `packages.mirror` replaces the community's own host.
        kind: `deb` or `rpm`.
    """
    base = params.packages.mirror if params.packages.source == "mirror" else COMMUNITY
    line = release_line(params.kubernetes_version)
    return f"{base.rstrip('/')}/core:/stable:/{line}/{kind}/"


def key_address(params: Params, kind: str) -> str:
    """Return where the key of the repository is."""
    file = "Release.key" if kind == "deb" else "repodata/repomd.xml.key"
    return address(params, kind) + file


def wanted_fingerprint(params: Params) -> str:
    """Return the fingerprint that the key must have; a mirror that signs anew has its own."""
    return params.packages.key_fingerprint or FINGERPRINT
