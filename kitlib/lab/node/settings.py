"""timedatectl and hostnamectl over the host's own files: zone, name, and what keeps its time."""

from __future__ import annotations

import re
import socket

from kitlib.lab.hostapi import Call, LabHost
from kitlib.lab.node.flags import FlagError, Flags, parse
from kitlib.lab.node.state import state_of

__all__ = ["hostnamectl", "timedatectl"]

_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")


async def timedatectl(host: LabHost, call: Call) -> int:
    """Show the time settings, or change the zone or the synchronisation.

    The lab's hosts all have the machine's time, which counts as kept by NTP; under `clock-skew`
    nothing keeps it, and `set-ntp true` sets it right.
    """
    flags = await _flags(call, takes=("property",), short={"p": "property"})
    if flags is None:
        return 1
    verb, *names = flags.rest or ("status",)
    if verb == "set-timezone" and names:
        if not _ZONE.fullmatch(names[0]):
            await call.err(
                f"Failed to set time zone: Invalid or not installed time zone '{names[0]}'"
            )
            return 1
        state = state_of(host)
        state.path("/etc/timezone").write_text(f"{names[0]}\n")
        link = state.path("/etc/localtime")
        link.unlink(missing_ok=True)
        link.symlink_to(f"/usr/share/zoneinfo/{names[0]}")
        return 0
    if verb == "set-ntp" and names:
        if names[0] in ("true", "yes", "1", "on"):
            await host.heal("clock-skew")
        return 0
    if verb not in ("show", "status"):
        await call.err(f"Unknown command verb {verb}.")
        return 1
    kept = "no" if "clock-skew" in host.faults else "yes"
    file = state_of(host).path("/etc/timezone")
    values = {
        "Timezone": file.read_text().strip() if file.is_file() else "Etc/UTC",
        "LocalRTC": "no",
        "CanNTP": "yes",
        "NTP": kept,
        "NTPSynchronized": kept,
    }
    if verb == "status":
        await call.out(f"                Time zone: {values['Timezone']}")
        await call.out(f"System clock synchronized: {kept}")
        await call.out(f"              NTP service: {'active' if kept == 'yes' else 'inactive'}")
        return 0
    for key in flags.every("property") or list(values):
        if key in values:
            await call.out(values[key] if flags.on("value") else f"{key}={values[key]}")
    return 0


async def hostnamectl(host: LabHost, call: Call) -> int:
    """Show or set the host name."""
    flags = await _flags(call)
    if flags is None:
        return 1
    verb, *names = flags.rest or ("status",)
    if verb in ("set-hostname", "hostname") and names:
        await host.heal("duplicate-hostname")
        socket.sethostname(names[0])
        state_of(host).path("/etc/hostname").write_text(f"{names[0]}\n")
        return 0
    name = (await host.run("hostname")).stdout.strip()
    await call.out(name if verb == "hostname" else f" Static hostname: {name}")
    return 0


async def _flags(
    call: Call, *, takes: tuple[str, ...] = (), short: dict[str, str] | None = None
) -> Flags | None:
    """Return the parsed arguments; None, and said so, when there is an unknown one."""
    try:
        return parse(
            call.argv[1:], takes=takes, switches=("no-pager", "value", "static"), short=short or {}
        )
    except FlagError as wrong:
        unknown = str(wrong).removeprefix("unknown flag: ")
        await call.err(f"{call.argv[0]}: unrecognized option '{unknown}'")
        return None
