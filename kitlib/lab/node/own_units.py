"""Units that somebody wrote into /etc/systemd/system of a lab host: their programs really run.

Enough of systemd for services of one program: ExecStart, Restart, RestartSec, and the link that
`enable` makes. A lab host is never started anew, so what is enabled is started by hand alone.
"""

from __future__ import annotations

import asyncio
import configparser
import contextlib
import os
import shlex
import signal
from pathlib import Path

from kitlib.lab.hostapi import LabHost
from kitlib.lab.node.state import Service, state_of

__all__ = ["DIRECTORY", "WANTS", "reload", "start", "stop"]

DIRECTORY = "/etc/systemd/system"
WANTS = f"{DIRECTORY}/multi-user.target.wants"
_TASK = "unit {}"


def reload(host: LabHost) -> None:
    """Learn the units whose files are there, and forget those whose files are gone."""
    state = state_of(host)
    files = {path.stem: path for path in state.path(DIRECTORY).glob("*.service")}
    for name, unit in list(state.services.items()):
        if unit.file and name not in files and unit.active == "inactive":
            del state.services[name]
    for name, path in files.items():
        unit = state.services.setdefault(name, Service(name, name))
        unit.file = f"{DIRECTORY}/{path.name}"
        unit.description = _read(path).get("Unit", "Description", fallback=path.name)
        unit.enabled = os.path.lexists(state.path(f"{WANTS}/{path.name}"))


def start(host: LabHost, unit: Service) -> None:
    """Start a unit's program."""
    state = state_of(host)
    unit.turn("active")
    unit.pid = state.pid()
    settings = _read(state.path(unit.file))
    host.start_task(_TASK.format(unit.name), _run(host, unit, settings))


async def stop(host: LabHost, unit: Service) -> None:
    """Stop a unit's program and what it started."""
    await host.stop_task(_TASK.format(unit.name))
    unit.turn("inactive")


def _read(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as systemd: by case
    with contextlib.suppress(OSError, configparser.Error):
        parser.read_string(path.read_text())
    return parser


async def _run(host: LabHost, unit: Service, settings: configparser.ConfigParser) -> None:
    """Run the program, again as its Restart says; returns when it is not started again."""
    argv = shlex.split(settings.get("Service", "ExecStart", fallback="/bin/false"))
    again = settings.get("Service", "Restart", fallback="no")
    pause = float(settings.get("Service", "RestartSec", fallback="0.1").removesuffix("s"))
    file = f"{unit.name}.service"
    while True:
        host.log(unit.name, f"systemd[1]: Started {file} - {unit.description}.")
        status = await _once(host, unit, argv)
        unit.exit_status = status
        word = "success" if status == 0 else "exit-code"
        host.log(unit.name, f"systemd[1]: {file}: Main process exited, code={status} ({word})")
        if again != "always" and not (again == "on-failure" and status):
            unit.turn("failed" if status else "inactive")
            return
        unit.turn("activating")
        await host.sleep(pause)
        unit.turn("active")


async def _once(host: LabHost, unit: Service, argv: list[str]) -> int:
    pipe = asyncio.subprocess.PIPE
    process = await host.spawn(*argv, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    unit.pid = process.pid
    assert process.stdout is not None  # noqa: S101 - asked for
    try:
        while line := await process.stdout.readline():
            who = Path(argv[0]).name
            text = line.decode(errors="replace").rstrip()
            host.log(unit.name, f"{who}[{process.pid}]: {text}")
        return await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
