"""The keys of a parameter file about what is installed on the hosts: swap, packages, proxy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StrictStr

__all__ = ["Packages", "PackagesEntry", "Swap", "package_findings"]

SOURCES = ("host", "community", "mirror", "directory")
SWAP_RULE = "off or keep"
FIRST_MINOR = 24
"""The community's repositories begin with Kubernetes 1.24."""


def _swap(value: Any) -> str:
    """Return the choice; YAML reads an unquoted `off` as the value false."""
    if value is False:
        return "off"
    if value in ("off", "keep"):
        return str(value)
    raise ValueError(SWAP_RULE)


Swap = Annotated[StrictStr, BeforeValidator(_swap)]
"""`off` or `keep`."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def _source(text: str) -> str:
    if text not in SOURCES:
        raise ValueError(f"one of {', '.join(SOURCES)}")
    return text


def _mirror(text: str) -> str:
    if text and not re.fullmatch(r"https?://[^\s/@'\"]+(/[^\s'\"]*)?", text):
        raise ValueError("an http:// or https:// address without a password, or empty")
    return text


def _fingerprint(text: str) -> str:
    plain = text.replace(" ", "").upper()
    if plain and not re.fullmatch(r"[0-9A-F]{40}", plain):
        raise ValueError("an OpenPGP fingerprint: 40 hexadecimal digits, or empty")
    return plain


class PackagesEntry(_Part):
    """Where the hosts' packages come from, as the file has it."""

    source: Annotated[StrictStr, AfterValidator(_source)] = "host"
    """host, community, mirror or directory."""
    mirror: Annotated[StrictStr, AfterValidator(_mirror)] = ""
    """The base address of a mirror of the community's repositories."""
    key_fingerprint: Annotated[StrictStr, AfterValidator(_fingerprint)] = ""
    """The fingerprint of the key that signs the mirror; empty is the community's."""
    directory: StrictStr = ""
    """A directory of packages and images on this machine, as `kit bundle` writes it."""


class Packages(_Part):
    """Where the hosts' packages come from, the path made absolute."""

    source: str = "host"
    """host, community, mirror or directory."""
    mirror: str = ""
    """The base address of a mirror of the community's repositories."""
    key_fingerprint: str = ""
    """The fingerprint of the key that signs the mirror; empty is the community's."""
    directory: Path | None = None
    """A directory of packages and images on this machine."""


def package_findings(
    data: Mapping[str, Any], directory: Path | None
) -> Iterator[tuple[tuple[str, ...], object, str]]:
    """Return what does not go together in `packages`, as (key, value, rule).

    Args:
        data: The whole file's values.
        directory: `packages.directory` as an absolute path.
    """
    packages = data.get("packages")
    if not isinstance(packages, Mapping):
        return
    source = packages.get("source")
    if source == "mirror" and not packages.get("mirror"):
        yield ("packages", "mirror"), "", "source: mirror needs the mirror's address"
    if source == "directory" and directory is None:
        yield ("packages", "directory"), "", "source: directory needs the directory"
    elif source == "directory" and not (directory and directory.is_dir()):
        yield (
            ("packages", "directory"),
            packages.get("directory"),
            f"no such directory ({directory})",
        )
    version = re.fullmatch(r"1\.(\d{1,3})\.\d{1,3}", str(data.get("kubernetes_version")))
    if source in ("community", "mirror") and version and int(version[1]) < FIRST_MINOR:
        rule = f"the community's repositories begin with Kubernetes 1.{FIRST_MINOR}"
        yield ("packages", "source"), source, rule
