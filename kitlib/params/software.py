"""The keys of a parameter file about what is installed on the hosts: swap, packages, proxy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, StrictStr

from kitlib.params.words import Part

__all__ = ["Packages", "PackagesEntry", "Proxy", "Swap", "package_findings"]

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


class PackagesEntry(Part):
    """Where the hosts' packages come from, as the file has it."""

    source: Annotated[StrictStr, AfterValidator(_source)] = "host"
    """host, community, mirror or directory."""
    mirror: Annotated[StrictStr, AfterValidator(_mirror)] = ""
    """The base address of a mirror of the community's repositories."""
    key_fingerprint: Annotated[StrictStr, AfterValidator(_fingerprint)] = ""
    """The fingerprint of the key that signs the mirror; empty is the community's."""
    directory: StrictStr = ""
    """A directory of packages and images on this machine, as `kit bundle` writes it."""


class Packages(Part):
    """Where the hosts' packages come from, the path made absolute."""

    source: str = "host"
    """host, community, mirror or directory."""
    mirror: str = ""
    """The base address of a mirror of the community's repositories."""
    key_fingerprint: str = ""
    """The fingerprint of the key that signs the mirror; empty is the community's."""
    directory: Path | None = None
    """A directory of packages and images on this machine."""


def _proxy(text: str) -> str:
    # The value may hold a password, so no message may show it.
    if text and not re.fullmatch(r"https?://([^\s/'\"\\@]+@)?[^\s/'\"\\@:]+(:\d{1,5})?/?", text):
        raise ValueError("an http:// or https:// address without a path, or empty")
    return text


def _exceptions(text: str) -> str:
    if not re.fullmatch(r"[-A-Za-z0-9.:/*,]*( *, *[-A-Za-z0-9.:/*]+)*", text):
        raise ValueError("names, addresses and networks, separated by commas")
    return text


class Proxy(Part):
    """The proxy between the hosts and the internet; false where there is none."""

    http: Annotated[StrictStr, AfterValidator(_proxy), Field(repr=False)] = ""
    """The proxy for http:// addresses."""
    https: Annotated[StrictStr, AfterValidator(_proxy), Field(repr=False)] = ""
    """The proxy for https:// addresses."""
    no_proxy: Annotated[StrictStr, AfterValidator(_exceptions)] = ""
    """What is reached without it; hosts, pod and Service addresses are always added."""

    def __bool__(self) -> bool:
        """Return whether there is a proxy."""
        return bool(self.http or self.https)

    def secrets(self) -> tuple[str, ...]:
        """Return the clear values that must appear nowhere."""
        found: list[str] = []
        for address in (self.http, self.https):
            password = urlsplit(address).password
            if password:
                found += [address, password, unquote(password)]
        return tuple(dict.fromkeys(found))

    def masked(self) -> dict[str, str]:
        """Return the values as the file has them, without user and password."""
        return {
            "http": mask_address(self.http),
            "https": mask_address(self.https),
            "no_proxy": self.no_proxy,
        }


def mask_address(text: str) -> str:
    """Return an address whose user and password are masked."""
    return re.sub(r"//[^/]*@", "//***@", text)


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
