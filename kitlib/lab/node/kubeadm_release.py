"""What differs between the releases of kubeadm, as data: images, names, labels and texts."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Release"]

_PAUSE = {
    15: "3.1", 18: "3.2", 21: "3.4.1", 22: "3.5", 23: "3.6", 24: "3.7", 25: "3.8", 26: "3.9",
    31: "3.10", 34: "3.10.1", 36: "3.10.2",
}  # fmt: skip
_ETCD = {
    15: "3.3.10", 16: "3.3.15-0", 17: "3.4.3-0", 19: "3.4.13-0", 22: "3.5.0-0", 23: "3.5.1-0",
    24: "3.5.3-0", 25: "3.5.4-0", 26: "3.5.6-0", 27: "3.5.7-0", 28: "3.5.9-0", 29: "3.5.10-0",
    30: "3.5.12-0", 31: "3.5.15-0", 32: "3.5.16-0", 33: "3.5.21-0", 34: "3.6.4-0", 35: "3.6.6-0",
}  # fmt: skip
_COREDNS = {
    15: "1.3.1", 16: "1.6.2", 17: "1.6.5", 18: "1.6.7", 19: "1.7.0", 21: "v1.8.0", 22: "v1.8.4",
    23: "v1.8.6", 25: "v1.9.3", 27: "v1.10.1", 29: "v1.11.1", 31: "v1.11.3", 33: "v1.12.0",
    34: "v1.12.1", 35: "v1.13.1",
}  # fmt: skip
_VERSION = re.compile(r"^v?1\.(\d+)\.(\d+)$")


@dataclass(frozen=True, slots=True)
class Release:
    """One Kubernetes release as kubeadm knows it.

    Attributes:
        version: Without the `v`: `1.22.3`.
    """

    version: str

    @classmethod
    def parse(cls, text: str) -> Release:
        """Return the release that a version names.

        Raises:
            ValueError: The text is no version; worded as kubeadm words it.
        """
        if not _VERSION.match(text):
            raise ValueError(
                f'could not parse "{text}" as version: illegal version string "{text}"'
                if not re.match(r"^v?\d", text)
                else f"version {text!r} is not supported"
            )
        return cls(text.removeprefix("v"))

    @property
    def minor(self) -> int:
        """The minor number."""
        return int(self.version.split(".")[1])

    @property
    def tag(self) -> str:
        """With the `v`: `v1.22.3`."""
        return f"v{self.version}"

    @property
    def repository(self) -> str:
        """The default image repository."""
        return "k8s.gcr.io" if self.minor < 25 else "registry.k8s.io"

    @property
    def etcd_tag(self) -> str:
        """The tag of the etcd image."""
        return _since(_ETCD, self.minor)

    def pause(self, repository: str = "") -> str:
        """Return the sandbox image."""
        return f"{repository or self.repository}/pause:{_since(_PAUSE, self.minor)}"

    def coredns(self, repository: str = "") -> str:
        """Return the CoreDNS image."""
        folder = "coredns/coredns" if self.minor >= 21 and not repository else "coredns"
        return f"{repository or self.repository}/{folder}:{_since(_COREDNS, self.minor)}"

    def etcd(self, repository: str = "") -> str:
        """Return the etcd image."""
        return f"{repository or self.repository}/etcd:{self.etcd_tag}"

    def component(self, name: str, repository: str = "") -> str:
        """Return the image of a control plane component or of kube-proxy."""
        return f"{repository or self.repository}/{name}:{self.tag}"

    def images(self, repository: str = "") -> list[str]:
        """Return every image that a control plane needs, in kubeadm's order."""
        names = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
        found = [self.component(name, repository) for name in names]
        tail = [self.pause(repository), self.etcd(repository), self.coredns(repository)]
        if self.minor >= 28:
            tail = [tail[2], tail[0], tail[1]]
        return found + tail

    @property
    def config_api(self) -> str:
        """The version of kubeadm's configuration format that this release writes."""
        if self.minor < 22:
            return "v1beta2"
        return "v1beta3" if self.minor < 31 else "v1beta4"

    @property
    def kubelet_config_map(self) -> str:
        """The name of the ConfigMap that holds the kubelets' configuration."""
        return f"kubelet-config-1.{self.minor}" if self.minor < 24 else "kubelet-config"

    @property
    def cri_socket(self) -> str:
        """The runtime socket as written to files and annotations."""
        path = "/run/containerd/containerd.sock"
        return path if self.minor < 24 else f"unix:///var{path}"

    @property
    def labels(self) -> dict[str, str]:
        """The labels of a control plane node."""
        role, gone = "node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"
        found = {gone: ""} if self.minor < 24 else {}
        if self.minor >= 20:
            found[role] = ""
        if self.minor >= 21:
            found["node.kubernetes.io/exclude-from-external-load-balancers"] = ""
        return found

    @property
    def labels_shown(self) -> str:
        """How `[mark-control-plane]` names the labels."""
        if self.minor < 20:
            return "label \"node-role.kubernetes.io/master=''\""
        if self.minor == 20:
            return (
                "labels \"node-role.kubernetes.io/master=''\" and "
                "\"node-role.kubernetes.io/control-plane='' (deprecated)\""
            )
        master = "node-role.kubernetes.io/master"
        shown = [key + "(deprecated)" if key == master else key for key in self.labels]
        return f"labels: [{' '.join(shown)}]"

    @property
    def taints(self) -> list[dict[str, str]]:
        """The taints of a control plane node."""
        keys = ["node-role.kubernetes.io/master"] if self.minor < 25 else []
        if self.minor >= 24:
            keys.append("node-role.kubernetes.io/control-plane")
        return [{"key": key, "effect": "NoSchedule"} for key in keys]

    @property
    def reset_directories(self) -> list[str]:
        """The stateful directories that reset empties, etcd's apart."""
        found = ["/var/lib/kubelet"]
        if self.minor < 24:
            found.append("/var/lib/dockershim")
        if self.minor < 28:
            found.append("/var/run/kubernetes")
        found.append("/var/lib/cni")
        return found if self.minor < 28 else ["/var/lib/kubelet", "/etc/kubernetes/pki"]


def _since(table: dict[int, str], minor: int) -> str:
    """Return the entry of the newest minor that is not above `minor`."""
    return table[max(first for first in table if first <= max(minor, min(table)))]
