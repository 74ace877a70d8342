"""Undo what kubeadm did on a host from which kubeadm itself was removed.

Removing the packages stops neither the control plane nor the pods: their containers belong to the
container runtime. So they go first, then the files, in the order in which `kubeadm reset` does it.
"""

from __future__ import annotations

from kitlib.command import Cmd, script
from kitlib.errors import PreconditionError
from kitlib.facts import HostFacts
from kitlib.stages.base import Action

__all__ = ["actions"]

_FILES = (
    "/etc/kubernetes/manifests",
    "/etc/kubernetes/pki",
    "/etc/kubernetes/admin.conf",
    "/etc/kubernetes/super-admin.conf",
    "/etc/kubernetes/kubelet.conf",
    "/etc/kubernetes/bootstrap-kubelet.conf",
    "/etc/kubernetes/controller-manager.conf",
    "/etc/kubernetes/scheduler.conf",
    "/var/lib/kubelet",
    "/var/lib/etcd",
    "/var/run/kubernetes",
)
"""What `kubeadm reset` deletes."""

_CONTAINERS = """
systemctl stop kubelet 2>/dev/null || :
pods=$(crictl -r "$1" pods -q) || exit 1
for pod in $pods; do crictl -r "$1" stopp "$pod" && crictl -r "$1" rmp "$pod" || exit 1; done
"""
_MOUNTS = """
for mount in $(awk '$2 ~ "^/var/lib/kubelet/" {print $2}' /proc/mounts | sort -r); do
  umount "$mount" || exit 1
done
rm -rf "$@"
"""


def actions(name: str, here: HostFacts, why: str) -> list[Action]:
    """Return the removal of the host's pods and of kubeadm's files.

    Raises:
        PreconditionError: The runtime cannot be told to remove the pods.
    """
    sockets = here.runtime.sockets or ()
    socket = next((each for each in sockets if here.runtime.running in each), "")
    if not here.runtime.installed or not here.runtime.running or not socket:
        raise PreconditionError(
            f"{name}: cannot be reset ({why}): kubeadm is not installed, and its containers cannot "
            f"be removed without it: {here.runtime.why or 'no CRI socket was found'}",
            remedy="`kit stage packages` installs kubeadm; then run the same command again",
        )
    return [
        Action(
            name,
            f"end the kubelet and remove its pods, kubeadm itself is not installed: {why}",
            script(_CONTAINERS, f"unix://{socket}", mutates=True, label="remove every pod"),
            changes_cluster=True,
        ),
        Action(name, "remove what kubeadm wrote", _removal()),
    ]


def _removal() -> Cmd:
    return script(_MOUNTS, *_FILES, mutates=True, label="remove kubeadm's files")
