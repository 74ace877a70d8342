"""The private root directory of a lab host: what the host sees of the machine, and what is its own.

Of the machine it sees `/usr` (and the library directories), the Python installation and this
package, all read-only; everything else is the host's own, in memory, and gone with it. The mounts
are made first and the user namespace after that, so that root on the host cannot undo them.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from kitlib.lab import kernel

__all__ = ["AUTHORIZED_KEYS", "COMMAND_DIRS", "HIDDEN", "HOST_KEY", "LAB_DIR", "build"]

AUTHORIZED_KEYS = Path("/root/.ssh/authorized_keys")
"""Who may log in to a host, as with OpenSSH; read at each login."""

HOST_KEY = Path("/etc/ssh/ssh_host_ed25519_key")
"""A host's private host key; the public one is beside it."""

LAB_DIR = Path("/run/lab")
"""Where the lab keeps its own things on a host: the shim, its interpreter, its socket."""

COMMAND_DIRS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""The directories of a host's PATH, in order."""

HIDDEN = (
    "containerd",
    "crictl",
    "ctr",
    "docker",
    "dockerd",
    "kubeadm",
    "kubectl",
    "kubelet",
    "minikube",
    "podman",
    "runc",
)
"""Commands of the machine that a lab host must not find: there the host has its own or none."""

_STAGE = Path("/run/lab-root")
_SYSTEM_DIRS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_OWN_DIRS = {
    "boot": 0o755,
    "home": 0o755,
    "media": 0o755,
    "mnt": 0o755,
    "opt/cni/bin": 0o755,
    "root": 0o700,
    "run/lab": 0o755,
    "run/lock": 0o1777,
    "run/netns": 0o755,
    "srv": 0o755,
    "tmp": 0o1777,
    "var/cache": 0o755,
    "var/lib": 0o755,
    "var/log/pods": 0o755,
    "var/log/containers": 0o755,
    "var/spool": 0o755,
    "var/tmp": 0o1777,
}
# No keys, no passwords, no one's configuration: only what programs need to run as usual.
_COPIED_FROM_ETC = (
    "alternatives",
    "bash.bashrc",
    "ca-certificates",
    "ca-certificates.conf",
    "debian_version",
    "ethertypes",
    "gai.conf",
    "host.conf",
    "inputrc",
    "iproute2",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "locale.conf",
    "lsb-release",
    "mime.types",
    "networks",
    "nsswitch.conf",
    "os-release",
    "pki/tls/certs",
    "profile",
    "protocols",
    "redhat-release",
    "rpc",
    "services",
    "shells",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "xattr.conf",
)
_DEVICES = ("full", "null", "random", "tty", "urandom", "zero")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "ptmx": "pts/ptmx",
    "stderr": "/proc/self/fd/2",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
}


def build(
    *,
    name: str,
    peers: Mapping[str, str],
    read_only: Iterable[str],
    kubectl: str,
    interpreter: str,
    release: Mapping[str, str],
) -> None:
    """Build the host's root directory and move this process, and its mount namespace, into it.

    Call it as PID 1 of a new PID namespace, in a new mount namespace, while single-threaded.

    Args:
        name: The host name.
        peers: Every lab host's name -> its lab address, for `/etc/hosts`.
        read_only: Directories of the machine shown at their own paths: Python and this package.
        kubectl: The real kubectl's path on the machine.
        interpreter: The Python that runs the shims of emulated commands.
        release: What `/etc/lab-release` says, KEY -> value.
    """
    root = _STAGE
    root.mkdir(exist_ok=True)
    kernel.mount("tmpfs", root, "mode=755")
    for path, mode in _OWN_DIRS.items():
        (root / path).mkdir(parents=True)
        (root / path).chmod(mode)
    (root / "var/run").symlink_to("/run")
    (root / "var/lock").symlink_to("/run/lock")
    _system(root)
    for path in read_only:
        _show(Path(path), root)
    (root / "run/lab/kubectl").touch()
    kernel.bind(Path(kubectl), root / "run/lab/kubectl", read_only=True)
    (root / "run/lab/python").symlink_to(interpreter)
    _etc(root / "etc", name, peers, release)
    _devices(root / "dev")
    (root / "sys").mkdir()
    kernel.bind(Path("/sys"), root / "sys", read_only=True)
    _proc(root / "proc")
    kernel.move_root(root)


def _system(root: Path) -> None:
    (root / "usr").mkdir()
    kernel.bind(Path("/usr"), root / "usr", read_only=True)
    for name in _SYSTEM_DIRS:
        here = Path("/", name)
        if here.is_symlink():
            (root / name).symlink_to(here.readlink())
        elif here.is_dir():
            (root / name).mkdir()
            kernel.bind(here, root / name, read_only=True)
    layers = root / "run/lab/layers"
    layers.mkdir()
    kernel.mount("tmpfs", layers, "mode=755")
    for directory in COMMAND_DIRS:
        target = root / directory.lstrip("/")
        if any(part.is_symlink() for part in (target, *target.parents)) or not target.is_dir():
            continue
        layer = layers / directory.strip("/").replace("/", "-")
        (layer / "upper").mkdir(parents=True, mode=0o755)
        (layer / "work").mkdir()
        options = f"lowerdir={target},upperdir={layer / 'upper'},workdir={layer / 'work'}"
        kernel.mount("overlay", target, options)
        for name in HIDDEN:
            (target / name).unlink(missing_ok=True)
    kernel.detach(layers)
    layers.rmdir()


def state_datapath(release: Path, text: str) -> None:
    """Write the line DATAPATH of a host's lab-release anew; an empty text takes it out."""
    kept = [
        line
        for line in release.read_text().splitlines(keepends=True)
        if not line.startswith("DATAPATH=")
    ]
    if text:
        kept.append(f'DATAPATH="{text}"\n')
    unfinished = release.with_suffix(".new")
    unfinished.write_text("".join(kept))
    unfinished.replace(release)


def _show(path: Path, root: Path) -> None:
    """Show a directory of the machine at its own path, unless a directory above is shown."""
    if Path("/usr") in (path, *path.parents):
        return
    target = root / str(path).lstrip("/")
    target.mkdir(parents=True, exist_ok=True)
    kernel.bind(path, target, read_only=True)


def _etc(etc: Path, name: str, peers: Mapping[str, str], release: Mapping[str, str]) -> None:
    etc.mkdir()
    for entry in _COPIED_FROM_ETC:
        _copy(Path("/etc", entry), etc / entry)
    own = {
        "fstab": "# a lab host: nothing to mount, no swap\n",
        "group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
        "hostname": f"{name}\n",
        "hosts": "127.0.0.1 localhost\n"
        + "".join(f"{address} {peer}\n" for peer, address in peers.items()),
        "lab-release": "".join(f'{key}="{value}"\n' for key, value in release.items()),
        "machine-id": f"{uuid.uuid4().hex}\n",
        "passwd": "root:x:0:0:root:/root:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        "resolv.conf": "# the lab has no name server outside the cluster\n",
    }
    for file, text in own.items():
        (etc / file).write_text(text)
    for directory in ("modules-load.d", "profile.d", "ssh", "sysctl.d"):
        (etc / directory).mkdir(exist_ok=True)


def _copy(source: Path, target: Path) -> None:
    """Copy what can be read of a file or tree; links stay links unless the target is a top file."""
    if not os.path.lexists(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        target.mkdir()
        for entry in source.iterdir():
            if entry.is_symlink():
                (target / entry.name).symlink_to(entry.readlink())
            else:
                _copy(entry, target / entry.name)
    elif source.is_file() and os.access(source, os.R_OK):
        shutil.copyfile(source, target)


def _proc(proc: Path) -> None:
    """Mount this PID namespace's /proc; only what belongs to the host's network can be written.

    The kernel lets root, even root in a user namespace that real root made, write machine-wide
    settings by file ownership alone.
    """
    proc.mkdir()
    kernel.mount("proc", proc)
    machine_wide = [entry for entry in (proc / "sys").iterdir() if entry.name != "net"]
    machine_wide += [proc / name for name in ("bus", "fs", "irq", "sysrq-trigger")]
    for entry in machine_wide:
        if entry.exists():
            kernel.bind(entry, entry, read_only=True)


def _devices(dev: Path) -> None:
    dev.mkdir()
    kernel.mount("tmpfs", dev, "mode=755")
    names = [*_DEVICES, *(["net/tun"] if Path("/dev/net/tun").exists() else [])]
    for name in names:
        (dev / name).parent.mkdir(exist_ok=True)
        (dev / name).touch()
        kernel.bind(Path("/dev", name), dev / name, read_only=False)
    for name, target in _DEVICE_LINKS.items():
        (dev / name).symlink_to(target)
    for name in ("pts", "shm"):
        (dev / name).mkdir()
    kernel.mount("devpts", dev / "pts", "newinstance,ptmxmode=0666,mode=0620")
    kernel.mount("tmpfs", dev / "shm", "mode=1777")
