"""The few system calls that Python 3.11 does not offer: unshare, mount, umount2, pivot_root.

A wrong call raises OSError that names what was asked, as `mount tmpfs on /run: ...`.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

__all__ = [
    "NEW_IPC",
    "NEW_MOUNT",
    "NEW_NET",
    "NEW_USER",
    "NEW_UTS",
    "bind",
    "detach",
    "enter",
    "mount",
    "move_root",
    "unshare",
]

NEW_MOUNT = 0x00020000
NEW_UTS = 0x04000000
NEW_IPC = 0x08000000
NEW_USER = 0x10000000
NEW_NET = 0x40000000

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC = 32, 4096, 16384
_MS_NOATIME, _MS_NODIRATIME, _MS_RELATIME = 1024, 2048, 1 << 21
_MNT_DETACH = 2
# statvfs(3) and mount(2) number the same flags differently from ST_NOATIME on.
_KEPT = {
    os.ST_NOSUID: _MS_NOSUID,
    os.ST_NODEV: _MS_NODEV,
    os.ST_NOEXEC: _MS_NOEXEC,
    os.ST_NOATIME: _MS_NOATIME,
    os.ST_NODIRATIME: _MS_NODIRATIME,
    os.ST_RELATIME: _MS_RELATIME,
}

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move this process into new namespaces (`NEW_...`, or-ed); in a user one it stays root."""
    uid, gid = os.geteuid(), os.getegid()
    _check(_libc.unshare(flags), "unshare")
    if flags & NEW_USER:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def enter(pid: int, *kinds: str) -> None:
    """Move this process into namespaces of another, in this order: `net`, `user`, `uts`, ..."""
    files = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds]
    for file, kind in zip(files, kinds, strict=True):
        _check(_libc.setns(file, 0), f"enter {kind} namespace")
        os.close(file)


def mount(kind: str, target: Path, options: str = "", *, read_only: bool = False) -> None:
    """Mount a file system of `kind` (tmpfs, proc, sysfs, devpts, overlay) on `target`."""
    flags = _MS_NOSUID | (_MS_RDONLY if read_only else 0)
    result = _libc.mount(
        b"lab", os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode()
    )
    _check(result, f"mount {kind} on {target}")


def bind(source: Path, target: Path, *, read_only: bool) -> None:
    """Show `source` and all that is mounted below it at `target`; read-only covers the mounts."""
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(_MS_BIND | _MS_REC), None
    )
    _check(result, f"bind {source} on {target}")
    if read_only:
        for point in _mounts_below(target):
            _remount_read_only(point)


def _remount_read_only(point: Path) -> None:
    """Make one mount read-only; flags that its owner locked are kept, else the kernel refuses."""
    have = os.statvfs(point).f_flag
    flags = _MS_REMOUNT | _MS_BIND | _MS_RDONLY
    flags |= sum(ms for st, ms in _KEPT.items() if have & st)
    result = _libc.mount(None, os.fsencode(point), None, ctypes.c_ulong(flags), None)
    _check(result, f"remount {point} read-only")


def _mounts_below(top: Path) -> list[Path]:
    """Return every mount point at or below `top`."""
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    paths = {Path(os.fsdecode(point.encode().decode("unicode_escape"))) for point in points}
    return sorted(path for path in paths if path == top or top in path.parents)


def detach(target: Path) -> None:
    """Take the mount at `target`, and all below it, out of sight; it goes when nobody uses it."""
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"unmount {target}")


def move_root(new_root: Path) -> None:
    """Make `new_root` (a mount point) the root directory and drop the old one."""
    os.chdir(new_root)
    _check(_libc.pivot_root(b".", b"."), f"pivot_root to {new_root}")
    _check(_libc.umount2(b".", _MNT_DETACH), "unmount the old root")
    os.chdir("/")
