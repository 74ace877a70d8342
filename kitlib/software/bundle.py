"""A bundle: a directory of packages and images that hosts without internet are built from.

`kit bundle` writes it: `packages/*.deb`, `images/*.tar`, `<plugin>.yaml`, `bundle.json` (what it
holds and for what) and `SHA256SUMS` (for `sha256sum -c`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kitlib.errors import ParamsError

__all__ = ["FORMAT", "Archive", "Bundle", "image_file_name", "read", "sha256", "sums", "verify"]

FORMAT = 1
MANIFEST = "bundle.json"
SUMS = "SHA256SUMS"
_AGAIN = "make it anew with `kit bundle`"


@dataclass(frozen=True, slots=True)
class Archive:
    """One file of a bundle.

    Attributes:
        file: Its path inside the bundle.
        name: The package, or the image's full name.
        version: The package's version; empty for an image.
        sha256: Its checksum, hexadecimal.
        size: Bytes.
    """

    file: str
    name: str
    version: str
    sha256: str
    size: int

    @property
    def release(self) -> str:
        """The version of the software in it: no epoch, no packaging revision."""
        return self.version.rpartition(":")[2].partition("-")[0].partition("~")[0]


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a bundle holds.

    Attributes:
        directory: Where it is.
        kubernetes_version: The version that it is for.
        plugin: The plugin whose manifest and images are in it.
        system: `ID VERSION_ID` of the system that its packages are for: `debian 12`.
        architecture: As dpkg names it: `amd64`.
        emulated: What the lab says of itself, where it was made in the lab; else empty.
        packages: The packages.
        images: The images.
    """

    directory: Path
    kubernetes_version: str
    plugin: str
    system: str
    architecture: str
    emulated: str
    packages: tuple[Archive, ...]
    images: tuple[Archive, ...]

    def manifest(self) -> str:
        """Return the text of its bundle.json."""
        data = {"format": FORMAT, **asdict(self)}
        del data["directory"]
        return json.dumps(data, indent=2) + "\n"


def image_file_name(image: str) -> str:
    """Return the name of an image's archive: the image's, with what no file name may hold."""
    return image.replace("/", "_").replace(":", "_").replace("@", "_") + ".tar"


def sums(files: Mapping[str, str]) -> str:
    """Return the text of a SHA256SUMS file, from path -> checksum."""
    return "".join(f"{digest}  {path}\n" for path, digest in sorted(files.items()))


def sha256(file: Path) -> str:
    """Return a file's checksum."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read(directory: Path) -> Bundle:
    """Return what a bundle says it holds; `verify` looks whether it is so.

    Raises:
        ParamsError: There is no bundle, or it is of another form.
    """
    file = directory / MANIFEST
    try:
        data: dict[str, Any] = json.loads(file.read_text())
        if data.pop("format") != FORMAT:
            raise ParamsError(f"packages.directory: {file}: of another kit's form", remedy=_AGAIN)
        return Bundle(
            directory=directory,
            packages=tuple(Archive(**each) for each in data.pop("packages")),
            images=tuple(Archive(**each) for each in data.pop("images")),
            **data,
        )
    except OSError as error:
        raise ParamsError(
            f"packages.directory: {directory}: no bundle: {file.name}: {error.strerror}",
            remedy=_AGAIN,
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ParamsError(f"packages.directory: {file}: damaged: {error}", remedy=_AGAIN) from error


def verify(bundle: Bundle) -> None:
    """Look that every file is there and is what was bundled.

    Raises:
        ParamsError: A file is missing or another one; all of them are named.
    """
    wrong = []
    for each in (*bundle.packages, *bundle.images):
        path = bundle.directory / each.file
        if not path.is_file():
            wrong.append(f"{each.file} is missing")
        elif sha256(path) != each.sha256:
            wrong.append(f"{each.file} is not the file that was bundled")
    if wrong:
        raise ParamsError(
            f"packages.directory: {bundle.directory}: {'; '.join(wrong)}", remedy=_AGAIN
        )
