"""What packages, disks and the network of a host say."""

from __future__ import annotations

from kitlib.hints.hint import PACKAGES, PREFLIGHT, Hint

__all__ = ["HOST"]

HOST: tuple[Hint, ...] = (
    Hint(
        "apt-lock",
        r"Could not get lock /var/lib/(dpkg|apt)|Unable to acquire the dpkg frontend lock",
        "another apt or dpkg runs on the host (often unattended-upgrades)",
        "wait until it ends, then run the stage again",
        PACKAGES,
    ),
    Hint(
        "apt-version",
        r"Version '[^']*' for '[^']*' was not found",
        "the host's package repositories do not offer that version",
        "apt-cache madison kubelet shows those that they do; the community repositories hold one "
        "minor version each",
        PACKAGES,
    ),
    Hint(
        "apt-package",
        r"Unable to locate package|has no installation candidate",
        "no package repository of the host knows that package",
        "add the Kubernetes package repository of the wanted minor version, then apt-get update",
        PACKAGES,
    ),
    Hint(
        "apt-held",
        r"Held packages were changed and -y was used",
        "the packages are held at another version",
        "apt-mark unhold kubelet kubeadm kubectl kubernetes-cni on that host, then run the stage "
        "again",
        PACKAGES,
    ),
    Hint(
        "apt-downgrade",
        r"Packages were downgraded and -y was used",
        "a newer version is installed than the wanted one, and apt does not go back by itself",
        "take the newer version in the parameters, or remove the packages on that host first",
        PACKAGES,
    ),
    Hint(
        "apt-key",
        r"\bNO_PUBKEY\b|public key is not available|\bEXPKEYSIG\b",
        "the key that signs the package repository is not on the host, or has expired",
        "fetch it again from the repository into /etc/apt/keyrings, then apt-get update",
        PACKAGES,
    ),
    Hint(
        "clock",
        r"Release file for \S+ is not valid yet",
        "the host's clock is behind",
        "switch on time synchronisation: timedatectl set-ntp true",
        PREFLIGHT,
    ),
    Hint(
        "dpkg-interrupted",
        r"dpkg was interrupted, you must manually run",
        "an earlier installation was cut short",
        "dpkg --configure -a on that host",
        PACKAGES,
    ),
    Hint(
        "disk-full",
        r"No space left on device",
        "a disk is full",
        "df -h on that host",
        PREFLIGHT,
    ),
    Hint(
        "name-unknown",
        r"no such host|Temporary failure resolving|Could not resolve host"
        r"|Name or service not known",
        "a name does not resolve on that host",
        "getent hosts <name> there; then /etc/resolv.conf, or the proxy if it was to be used",
        PREFLIGHT,
    ),
    Hint(
        "no-route",
        r"no route to host|Network is unreachable",
        "there is no way to that address: the host is down, or the address is wrong",
        "ping it from the same host; check node_address in the parameters",
        PREFLIGHT,
    ),
)
"""Messages of the hosts, the specific ones first."""
