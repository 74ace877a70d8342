"""What makes a lab host a machine of its own to whoever asks: the UUID of its firmware, its zone.

Hosts of a lab share one kernel and one firmware. The kernel's own answer would say that they are
one machine, and a check for cloned machines would be right to complain.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from kitlib.lab import kernel
from kitlib.lab.hostroot import LAB_DIR

__all__ = ["ZONE", "give_firmware_uuid", "set_zone"]

ZONE = "Etc/UTC"
"""The time zone of every lab host."""

_CLASSES = Path("/sys/class")
_UUID = Path("dmi/id/product_uuid")


def give_firmware_uuid() -> None:
    """Have this host's /sys tell a UUID of its own; call it while mounts can still be made.

    A machine without DMI (a small virtual machine, a board) has no place for it in its /sys: a
    directory of links to the real classes then stands before them.
    """
    text = f"{uuid.uuid4()}\n"
    if (_CLASSES / _UUID).exists():
        file = LAB_DIR / "product_uuid"
        file.write_text(text)
        kernel.bind(file, _CLASSES / _UUID, read_only=True)
        return
    real = LAB_DIR / "sys"
    real.mkdir()
    kernel.bind(Path("/sys"), real, read_only=True)
    kernel.mount("tmpfs", _CLASSES, "mode=755")
    for entry in (real / "class").iterdir():
        (_CLASSES / entry.name).symlink_to(entry)
    file = _CLASSES / _UUID
    file.parent.mkdir(parents=True)
    file.write_text(text)
    file.chmod(0o400)


def set_zone(etc: Path) -> None:
    """Write the time zone into a host's /etc, as Debian keeps it."""
    (etc / "timezone").unlink(missing_ok=True)
    (etc / "timezone").write_text(f"{ZONE}\n")
    (etc / "localtime").unlink(missing_ok=True)
    (etc / "localtime").symlink_to(f"/usr/share/zoneinfo/{ZONE}")
