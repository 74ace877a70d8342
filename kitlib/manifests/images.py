"""Image references: taken apart, given a tag where they lack one, moved to another registry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from kitlib.manifests.objects import Obj, containers

__all__ = ["Image", "images_of", "parse"]

_PATH = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?P<registry>[A-Za-z0-9.-]+(?::\d+)?)/)?(?P<path>{_PATH}(?:/{_PATH})*)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>[a-z0-9+._-]+:[0-9a-fA-F]{32,}))?"
)
_UNFILLED = re.compile(r"__[A-Z][A-Z0-9_]*__")
HUB = "docker.io"


@dataclass(frozen=True, slots=True)
class Image:
    """One image reference with what runtimes add to a short one.

    Attributes:
        registry: The registry's name, with its port; `docker.io` where none is stated.
        path: The repository in it, `library/` included.
        tag: The tag; empty where none is stated.
        digest: `sha256:...`; empty where none is stated.
    """

    registry: str
    path: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        """Return the whole reference."""
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.registry}/{self.path}{tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def full(self) -> str:
        """The reference as a runtime keeps it: `latest` where it has neither tag nor digest."""
        return str(self if self.tag or self.digest else replace(self, tag="latest"))

    @property
    def moves(self) -> bool:
        """True when what it names is not the same every day: no tag or `latest`, and no digest."""
        return not self.digest and self.tag in ("", "latest")

    def at(self, registry: str) -> Image:
        """Return the same image below another registry, or a prefix in one."""
        name, _, prefix = registry.strip("/").partition("/")
        return replace(self, registry=name, path=f"{prefix}/{self.path}" if prefix else self.path)

    def pinned(self, tags: Mapping[str, str]) -> Image:
        """Return the image with the tag that is known for its path, where it lacks one."""
        return replace(self, tag=tags[self.path]) if self.moves and self.path in tags else self


def parse(text: str) -> Image:
    """Return an image reference taken apart.

    Raises:
        ValueError: It is none, or holds a placeholder that nobody filled in.
    """
    first, slash, _ = text.partition("/")
    has_registry = bool(slash) and ("." in first or ":" in first or first == "localhost")
    found = _REFERENCE.fullmatch(text if has_registry else f"{HUB}/{text}")
    if not found or _UNFILLED.search(text):
        raise ValueError(text)
    path = found["path"]
    if not has_registry and not slash:
        path = f"library/{path}"
    return Image(found["registry"], path, found["tag"] or "", found["digest"] or "")


def images_of(objects: list[Obj]) -> list[str]:
    """Return the image of every container, as it stands there, each once."""
    found = [each["image"] for each in containers(objects) if isinstance(each.get("image"), str)]
    return list(dict.fromkeys(filter(None, found)))
