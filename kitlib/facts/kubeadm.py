"""What kubeadm left on a host: whether it belongs to a cluster, and to which.

No private key and no credential is read: of the kubeconfig files only the server and the cluster's
name, of the keys only the CA's certificate, which every node has.
"""

from __future__ import annotations

from dataclasses import dataclass

from kitlib.facts.certificate import ca_hash
from kitlib.facts.sections import ABSENT, command, lines_of, section, split

__all__ = ["COMMAND", "SCRIPT", "Kubeadm", "parse"]

_FILES = (
    "/etc/kubernetes/admin.conf",
    "/etc/kubernetes/kubelet.conf",
    "/etc/kubernetes/bootstrap-kubelet.conf",
    "/etc/kubernetes/pki/ca.crt",
    "/etc/kubernetes/manifests/*.yaml",
    "/var/lib/kubelet/config.yaml",
    "/var/lib/etcd/member",
)

SCRIPT = "".join(
    (
        section(
            "kubeadm.files",
            f'for f in {" ".join(_FILES)}; do if [ -e "$f" ]; then echo "$f"; fi; done',
        ),
        section(
            "kubeadm.clusters",
            "for f in kubelet.conf admin.conf; do if [ -r /etc/kubernetes/$f ]; then"
            ' sed -n -E "s/^ +(server|cluster): +([^ ]+)\\$/$f \\1 \\2/p" /etc/kubernetes/$f;'
            " fi; done",
        ),
        section(
            "kubeadm.ca",
            "if [ -r /etc/kubernetes/pki/ca.crt ]; then cat /etc/kubernetes/pki/ca.crt; fi",
        ),
        section("kubeadm.kubelet", "systemctl is-active kubelet || :"),
    )
)
COMMAND = command(SCRIPT)

_GENERIC = ("kubernetes", "default-cluster")
"""Names that kubeadm and the kubelet give to any cluster."""


@dataclass(frozen=True, slots=True)
class Kubeadm:
    """What of a cluster is on one host.

    Attributes:
        files: Those of kubeadm's files and directories that exist.
        server: The API server that the host's kubeconfig names; empty for none.
        cluster: The cluster's own name; empty where the host has only a name that any cluster has
            (a joined worker's kubelet.conf never tells it).
        ca_hash: `sha256:<hex>` of the cluster CA's public key, as `kubeadm join` takes it.
        kubelet: What systemd says of the kubelet: `active`, `inactive`, `activating`, ...
    """

    files: tuple[str, ...]
    server: str
    cluster: str
    ca_hash: str
    kubelet: str

    @property
    def joined(self) -> bool:
        """True when the host is in a cluster: its kubelet has credentials of one."""
        return "/etc/kubernetes/kubelet.conf" in self.files

    @property
    def initialised(self) -> bool:
        """True when `kubeadm init` ran here to the point where an administrator can log in."""
        return "/etc/kubernetes/admin.conf" in self.files

    @property
    def serves(self) -> bool:
        """True when the kubelet here is told to run an API server."""
        return "/etc/kubernetes/manifests/kube-apiserver.yaml" in self.files

    @property
    def manifests(self) -> tuple[str, ...]:
        """The static pods' manifests."""
        return tuple(each for each in self.files if each.startswith("/etc/kubernetes/manifests/"))

    @property
    def etcd(self) -> bool:
        """True when etcd's data are here."""
        return "/var/lib/etcd/member" in self.files

    @property
    def clean(self) -> bool:
        """True when nothing of kubeadm's is here: `kubeadm init` and `join` find the way free."""
        return not self.files


def parse(text: str) -> Kubeadm:
    """Return what of a cluster is on the host, from what `COMMAND` printed.

    Raises:
        ParseError: ca.crt is there and is no certificate.
    """
    sections = split(text)
    seen: dict[str, list[str]] = {"server": [], "cluster": []}
    for line in lines_of(sections, "kubeadm.clusters") or ():
        words = line.split(maxsplit=2)
        if len(words) == 3 and words[1] in seen:
            seen[words[1]].append(words[2].strip("\"'"))
    pem = sections.get("kubeadm.ca", ABSENT)
    words = (lines_of(sections, "kubeadm.kubelet") or ("",))[0].split()
    return Kubeadm(
        files=lines_of(sections, "kubeadm.files") or (),
        server=(seen["server"] or [""])[0],
        cluster=next((name for name in seen["cluster"] if name not in _GENERIC), ""),
        ca_hash=ca_hash(pem.text) if pem.status == 0 and pem.text.strip() else "",
        kubelet=words[0] if len(words) == 1 else "",
    )
