"""What a host's files say of how it comes up again: modules, sysctls, swap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kitlib.facts.kernel import SYSCTLS
from kitlib.facts.sections import command, lines_of, section, split

__all__ = ["COMMAND", "SCRIPT", "Setup", "parse"]

_NAMES = "|".join(name.replace(".", "[./]") for name in SYSCTLS)
# Later names win, and /etc goes before /run and /usr/lib: the same order as systemd's own.
_DIRECTORIES = "/usr/lib/sysctl.d /run/sysctl.d /etc/sysctl.d"

SCRIPT = "".join(
    (
        section(
            "setup.modules",
            "cat /usr/lib/modules-load.d/*.conf /run/modules-load.d/*.conf"
            " /etc/modules-load.d/*.conf /etc/modules 2>/dev/null"
            " | grep -E '^[a-z]' | sort -u; :",
        ),
        section(
            "setup.sysctls",
            f"for d in {_DIRECTORIES}; do ls -d $d/*.conf 2>/dev/null; done"
            " | awk -F/ '{print $NF, NR, $0}' | sort -k1,1 -k2,2n | cut -d ' ' -f 3-"
            ' | while read -r f; do cat "$f"; echo; done'
            f" | grep -E '^ *-?({_NAMES}) *=' ; :",
        ),
        section(
            "setup.fstab",
            "grep -sE '^[^#]\\S*\\s+\\S+\\s+swap\\s' /etc/fstab; :",
        ),
    )
)
COMMAND = command(SCRIPT)


@dataclass(frozen=True, slots=True)
class Setup:
    """What is kept in files; None stands for what could not be read.

    Attributes:
        modules: Kernel modules that are loaded when the host starts.
        sysctls: Setting -> value that it gets when the host starts, of those that matter here.
        swap_lines: Lines of /etc/fstab that bring swap areas into use.
    """

    modules: tuple[str, ...] | None
    sysctls: Mapping[str, str] | None
    swap_lines: tuple[str, ...] | None


def parse(text: str) -> Setup:
    """Return what is kept in files, from what `COMMAND` printed."""
    sections = split(text)
    lines = lines_of(sections, "setup.sysctls")
    sysctls = None if lines is None else dict(map(_setting, lines))
    return Setup(
        modules=lines_of(sections, "setup.modules"),
        sysctls=sysctls,
        swap_lines=lines_of(sections, "setup.fstab"),
    )


def _setting(line: str) -> tuple[str, str]:
    name, _, value = line.partition("=")
    name = name.strip().removeprefix("-")
    # `net/ipv4/ip_forward` is another spelling of `net.ipv4.ip_forward`.
    spelled = {each.replace(".", "/"): each for each in SYSCTLS}
    return spelled.get(name, name), value.strip()
