"""Where a host gets its packages from: its package manager, its repositories, what they offer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from kitlib.facts.sections import command, lines_of, section, split

__all__ = ["COMMAND", "FILES", "SCRIPT", "Repository", "parse", "versions"]

FILES = (
    "/etc/apt/keyrings/kubekit-*",
    "/etc/apt/sources.list.d/kubekit-*",
    "/etc/apt/preferences.d/kubekit-*",
    "/etc/apt/apt.conf.d/*kubekit*",
    "/etc/yum.repos.d/kubekit-*",
    "/etc/systemd/system/containerd.service.d/kubekit-*",
)
"""The kit's own files that are looked at."""

_REPOSITORIES = "/etc/apt/sources.list /etc/apt/sources.list.d/* /etc/yum.repos.d/*"

SCRIPT = "".join(
    (
        section(
            "repository.manager",
            "for t in apt-get dnf; do if command -v $t >/dev/null; then echo $t; fi; done",
        ),
        section(
            "repository.files",
            f'for f in {" ".join(FILES)}; do if [ -f "$f" ]; then sha256sum "$f"; fi; done',
        ),
        section(
            "repository.others",
            # An address may hold a password, which does not belong into the record.
            f"grep -sE '^[^#]*core:/stable:/' {_REPOSITORIES} | grep -v kubekit-"
            " | sed -E 's#//[^/@ ]*@#//***@#'; :",
        ),
        section(
            "repository.offered",
            "if command -v apt-cache >/dev/null; then apt-cache madison kubeadm 2>/dev/null; fi",
        ),
    )
)
COMMAND = command(SCRIPT)


@dataclass(frozen=True, slots=True)
class Repository:
    """Where packages come from.

    Attributes:
        manager: `apt-get` or `dnf`; empty where there is neither.
        files: Path -> SHA-256 of the kit's own files.
        others: Lines of other files that name a repository of the community's.
        offered: Versions of kubeadm in the package lists that the host read last, newest first.
    """

    manager: str
    files: Mapping[str, str]
    others: tuple[str, ...]
    offered: tuple[str, ...]

    def has(self, path: str, content: str | None = None) -> bool:
        """Return whether one of the kit's own files is there, with that content where given."""
        if content is None:
            return path in self.files
        return self.files.get(path) == hashlib.sha256(content.encode()).hexdigest()


def parse(text: str) -> Repository:
    """Return where packages come from, from what `COMMAND` printed."""
    sections = split(text)
    sums = [line.split(None, 1) for line in lines_of(sections, "repository.files") or ()]
    return Repository(
        manager=(lines_of(sections, "repository.manager") or ("",))[0].strip(),
        files={path.strip(): digest for digest, path in sums},
        others=lines_of(sections, "repository.others") or (),
        offered=versions("\n".join(lines_of(sections, "repository.offered") or ())),
    )


def versions(text: str) -> tuple[str, ...]:
    """Return the versions in what `apt-cache madison` printed, each once."""
    rows = (line.split("|") for line in text.splitlines() if line.count("|") >= 2)
    return tuple(dict.fromkeys(row[1].strip() for row in rows))
