"""The tools that a container finds, by its image: the machine's, and the lab's for those it lacks.

The lab has no image files. A container of a BusyBox image finds the tools with BusyBox's names and
no others; any other image has all that the machine has. A tool of `APPLETS` that the machine lacks
is one of `kitlib.lab.applets`: it sends and receives the same packets as the real one, and prints
the same.
"""

from __future__ import annotations

import compileall
import shutil
from pathlib import Path

from kitlib.lab import applets
from kitlib.lab.hostroot import COMMAND_DIRS, LAB_DIR

__all__ = ["APPLETS", "prepare", "search_path"]

APPLETS = ("curl", "dig", "httpd", "nc", "nslookup", "wget")
"""The tools that the lab has itself, by name."""

_IMAGES = LAB_DIR / "images"
_OURS_ALWAYS = ("httpd",)  # what machines have by that name is Apache's, not BusyBox's
_NAMES = """
[ [[ arp arping ash awk base64 basename cat chgrp chmod chown cmp cp cut date dd df diff dirname
dmesg du echo egrep env expr false fgrep find free getopt grep gunzip gzip head hexdump hostid
hostname httpd id ifconfig ip kill killall less ln ls lsof md5sum mkdir mkfifo mktemp more mount mv
nc netstat nice nl nohup nproc nsenter nslookup od paste patch pgrep ping ping6 pkill printenv
printf ps pwd readlink realpath rev rm rmdir route sed seq setsid sh sha1sum sha256sum sha512sum
shuf sleep sort split stat strings stty sync sysctl tac tail tar tee telnet test time timeout top
touch tr traceroute true tty umount uname uniq unlink unshare uptime usleep vi watch wc wget which
who whoami xargs yes zcat
"""


def search_path(image: str) -> str:
    """Return the PATH in containers of an image; the daemon's own where `prepare` did not run."""
    machine = ":".join(COMMAND_DIRS)
    base = image.split("@")[0].rsplit("/", 1)[-1].split(":")[0]
    if base == "busybox" and (_IMAGES / "busybox").is_dir():
        return str(_IMAGES / "busybox")
    return f"{_IMAGES / 'any'}:{machine}"


def prepare(images: Path = _IMAGES) -> None:
    """Lay the images' tools out on this host, which is a lab host."""
    machine = ":".join(COMMAND_DIRS)
    own, library = images / "own", images / "lib"
    own.mkdir(parents=True, exist_ok=True)
    _copy_applets(library)
    for name in APPLETS:
        (own / name).write_text(_launcher(name, library))
        (own / name).chmod(0o755)
    everything = images / "any"
    everything.mkdir(exist_ok=True)
    for name in APPLETS:
        if name in _OURS_ALWAYS or not shutil.which(name, path=machine):
            (everything / name).symlink_to(own / name)
    busybox = images / "busybox"
    busybox.mkdir(exist_ok=True)
    for name in _NAMES.split():
        if tool := shutil.which(name, path=f"{everything}:{machine}"):
            (busybox / name).symlink_to(tool)


def _copy_applets(library: Path) -> None:
    """Put the applets where each container sees them: the kit may lie in a /tmp that pods lack."""
    package = library / "kitlib" / "lab" / "applets"
    package.mkdir(parents=True, exist_ok=True)
    for source in Path(applets.__file__).parent.glob("*.py"):
        shutil.copy(source, package)
    compileall.compile_dir(library, quiet=2)  # containers start a great many of them


def _launcher(name: str, library: Path) -> str:
    """Return the script that starts one of the lab's tools: without site, with few imports."""
    start = (
        f"import sys; sys.path.insert(0, {str(library)!r}); "
        f"from kitlib.lab.applets.{name} import main; sys.exit(main(sys.argv[1:]))"
    )
    head = f"#!/bin/sh\n# {name} of the lab, which stands in where the machine has none\n"
    return f'{head}exec {LAB_DIR}/python -SEB -c "{start}" "$@"\n'
