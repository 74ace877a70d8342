"""The systemd units that the kit writes on hosts: their names, their text, and how they go.

All are called kubekit-*, so that whoever finds one knows whose it is, and a reset finds all.
"""

from __future__ import annotations

from kitlib.command import Cmd, script

__all__ = [
    "DIRECTORY",
    "KIT_DIRECTORY",
    "PREFIX",
    "remove_units",
    "start_unit",
    "unit_name",
    "unit_path",
    "unit_text",
]

KIT_DIRECTORY = "/etc/kubekit"
"""Where the kit keeps on a host what it applied there."""
DIRECTORY = "/etc/systemd/system"
PREFIX = "kubekit-"


def unit_name(what: str) -> str:
    """Return the name (without .service) of the kit's unit for something."""
    return f"{PREFIX}{what}"


def unit_path(what: str) -> str:
    """Return the unit's file."""
    return f"{DIRECTORY}/{unit_name(what)}.service"


def unit_text(
    description: str, command: str, *, again: bool = True, after: str = "network.target"
) -> str:
    """Return a unit that runs a command from the host's start on.

    Args:
        description: What it is.
        command: The command.
        again: Whether it is started again whenever it ends.
        after: The units behind which it starts.
    """
    restart = "Restart=always\nRestartSec=5\n" if again else ""
    return f"""\
[Unit]
Description={description}
After={after}

[Service]
ExecStart={command}
{restart}
[Install]
WantedBy=multi-user.target
"""


def start_unit(what: str) -> Cmd:
    """Return the command that starts a unit whose file was written, now and with the host."""
    name = f"{unit_name(what)}.service"
    return script(
        'systemctl daemon-reload && systemctl enable "$1" && systemctl restart "$1"',
        name,
        mutates=True,
        label=f"enable and start {name}",
    )


def remove_units(*names: str) -> Cmd:
    """Return the command that stops units, and removes their files and programs.

    Args:
        names: Files' names, such as kubekit-kubenet.service.
    """
    return script(
        'for u in "$@"; do systemctl disable --now "$u"; '
        f"p=${{u#{PREFIX}}}; "
        f'rm -f {DIRECTORY}/"$u" {KIT_DIRECTORY}/"${{p%.service}}.sh" || exit 1; done; '
        "systemctl daemon-reload",
        *names,
        mutates=True,
        label=f"stop and remove {', '.join(names)}",
    )
