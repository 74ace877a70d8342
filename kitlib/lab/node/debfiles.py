"""Emulated .deb files: what apt-get writes when it downloads, and reads when it is given a path.

They hold one line, name and version; a real dpkg refuses them, and they say so themselves.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["DebFileError", "file_name", "read", "write"]

_FIRST = "A package of the lab, which only its emulated apt understands:"


class DebFileError(Exception):
    """A file is no package; the text is apt's own."""


def file_name(name: str, version: str) -> str:
    """Return the name that apt gives a package's file."""
    return f"{name}_{version.replace(':', '%3a')}_amd64.deb"


def write(folder: Path, name: str, version: str) -> Path:
    """Write the package's file into a folder and return it."""
    file = folder / file_name(name, version)
    file.write_text(f"{_FIRST} {name} {version}\n")
    return file


def read(file: Path) -> tuple[str, str]:
    """Return the name and version of the package in a file.

    Raises:
        DebFileError: The file is not there, or is no package of the lab.
    """
    try:
        words = file.read_text(errors="replace").removeprefix(_FIRST).split()
        text = file.read_text(errors="replace")
    except OSError:
        raise DebFileError(f"Unsupported file {file} given on commandline") from None
    if not text.startswith(_FIRST) or len(words) != 2:
        raise DebFileError(f"Invalid archive signature: {file} is no package of the lab")
    return words[0], words[1]
