"""systemctl, modprobe, lsmod, swapon and swapoff over the node's emulated state."""

from __future__ import annotations

import datetime as dt
import time

from kitlib.lab.hostapi import Call, LabHost
from kitlib.lab.node import own_units, services
from kitlib.lab.node.flags import FlagError, Flags, parse
from kitlib.lab.node.journalctl import short_line
from kitlib.lab.node.state import Service, state_of

__all__ = ["lsmod", "modprobe", "swap_is_on", "swapoff", "swapon", "systemctl"]

_MODULES = {
    "br_netfilter": (32768, "0", ""),
    "bridge": (311296, "1", "br_netfilter"),
    "ip_vs": (176128, "0", ""),
    "ip_vs_rr": (16384, "0", ""),
    "ip_vs_sh": (16384, "0", ""),
    "ip_vs_wrr": (16384, "0", ""),
    "ipip": (20480, "0", ""),
    "nf_conntrack": (172032, "0", ""),
    "overlay": (151552, "0", ""),
    "vxlan": (143360, "0", ""),
}


async def systemctl(host: LabHost, call: Call) -> int:
    """Run systemctl for the units that the node has."""
    try:
        flags = parse(
            call.argv[1:],
            takes=("property", "lines", "output"),
            switches=("now", "no-pager", "quiet", "full", "value", "no-block"),
            short={"p": "property", "n": "lines", "o": "output", "q": "quiet", "l": "full"},
        )
    except FlagError as wrong:
        unknown = str(wrong).removeprefix("unknown flag: ")
        await call.err(f"systemctl: unrecognized option '{unknown}'")
        return 1
    if not flags.rest:
        return 0
    verb, *given = flags.rest
    names = [name.removesuffix(".service") for name in given]
    if verb in ("daemon-reload", "daemon-reexec", "reset-failed"):
        own_units.reload(host)
        return 0
    if verb not in _VERBS:
        await call.err(f"Unknown command verb {verb}.")
        return 1
    if not names:
        await call.err("Too few arguments.")
        return 1
    status = 0 if verb != "is-active" and verb != "is-enabled" else 3
    results = [await _one(host, call, verb, name, flags) for name in names]
    if verb in ("is-active", "is-enabled"):
        return 0 if 0 in results else max(results)
    return max([status, *results])


_VERBS = (
    "is-active",
    "is-enabled",
    "is-failed",
    "start",
    "stop",
    "restart",
    "status",
    "enable",
    "disable",
    "show",
    "kill",
)


async def _one(host: LabHost, call: Call, verb: str, name: str, flags: Flags) -> int:
    unit = state_of(host).services.get(name)
    quiet = flags.on("quiet")
    if verb == "show":
        return await _show(call, name, unit, flags)
    if verb == "is-active":
        active = unit.active if unit else "inactive"
        if not quiet:
            await call.out(active)
        return 0 if active == "active" else 3
    if verb == "is-failed":
        active = unit.active if unit else "inactive"
        if not quiet:
            await call.out(active)
        return 0 if active == "failed" else 1
    if unit is None:
        return await _unknown_unit(call, verb, name)
    if verb == "is-enabled":
        if not quiet:
            await call.out("enabled" if unit.enabled else "disabled")
        return 0 if unit.enabled else 1
    if verb == "status":
        return await _status(host, call, unit)
    if verb in ("enable", "disable"):
        await _enable(host, call, unit, verb == "enable")
        if flags.on("now"):
            await (services.start if verb == "enable" else services.stop)(host, name)
        return 0
    if verb in ("stop", "restart", "kill"):
        await services.stop(host, name)
    if verb in ("start", "restart"):
        await services.start(host, name)
    return 0


async def _unknown_unit(call: Call, verb: str, name: str) -> int:
    """Say that there is no such unit, in the words of each verb; returns the exit status."""
    file = f"{name}.service"
    if verb == "is-enabled":
        await call.err(f"Failed to get unit file state for {file}: No such file or directory")
        return 1
    if verb in ("enable", "disable"):
        await call.err(f"Failed to {verb} unit: Unit file {file} does not exist.")
        return 1
    if verb == "status":
        await call.err(f"Unit {file} could not be found.")
        return 4
    await call.err(f"Failed to {verb} {file}: Unit {file} not {_LOADED.get(verb, 'found')}.")
    return 5


_LOADED = {"stop": "loaded", "kill": "loaded"}


async def _enable(host: LabHost, call: Call, unit: Service, wanted: bool) -> None:
    link = f"{own_units.WANTS}/{unit.name}.service"
    here = state_of(host).path(link)
    if wanted and not unit.enabled:
        await call.err(f"Created symlink {link} → {unit.path}.")
        if unit.file:
            here.parent.mkdir(parents=True, exist_ok=True)
            here.unlink(missing_ok=True)
            here.symlink_to(unit.path)
    if not wanted and unit.enabled:
        await call.err(f'Removed "{link}".')
        here.unlink(missing_ok=True)
    unit.enabled = wanted


async def _status(host: LabHost, call: Call, unit: Service) -> int:
    """Print the status page of a unit; returns 0 when it is active, else 3."""
    enabled = "enabled" if unit.enabled else "disabled"
    since = dt.datetime.fromtimestamp(unit.since, dt.UTC)
    ago = f"{since:%a %Y-%m-%d %H:%M:%S} UTC; {int(time.time() - unit.since)}s ago"
    mark = "●" if unit.active in ("active", "activating") else "○"
    words = {
        "active": "active (running)",
        "inactive": "inactive (dead)",
        "activating": "activating (auto-restart) (Result: exit-code)",
        "failed": "failed (Result: exit-code)",
    }
    await call.out(f"{mark} {unit.name}.service - {unit.description}")
    await call.out(f"     Loaded: loaded ({unit.path}; {enabled}; preset: enabled)")
    if unit.name == "kubelet":
        await call.out("    Drop-In: /etc/systemd/system/kubelet.service.d")
        await call.out("             └─10-kubeadm.conf")
    await call.out(f"     Active: {words[unit.active]} since {ago}")
    if unit.pid:
        await call.out(f"   Main PID: {unit.pid} ({unit.name})")
    elif unit.exit_status is not None and unit.active != "inactive":
        await call.out(f"   Main PID: (code=exited, status={unit.exit_status}/FAILURE)")
    lines = host.journal(unit.name)[-10:]
    if lines:
        await call.out("")
    for at, text in lines:
        await call.out(short_line(host, unit.name, at, text))
    return 0 if unit.active == "active" else 3


async def _show(call: Call, name: str, unit: Service | None, flags: Flags) -> int:
    """Print properties as `Name=value`, or the values alone."""
    sub = {"active": "running", "inactive": "dead", "activating": "auto-restart"}
    active = unit.active if unit else "inactive"
    properties = {
        "Id": f"{name}.service",
        "Names": f"{name}.service",
        "LoadState": "loaded" if unit else "not-found",
        "ActiveState": active,
        "SubState": sub.get(active, "failed"),
        "UnitFileState": ("enabled" if unit.enabled else "disabled") if unit else "",
        "MainPID": str(unit.pid if unit else 0),
        "Description": unit.description if unit else f"{name}.service",
        "FragmentPath": unit.path if unit else "",
        "Result": "exit-code" if active in ("activating", "failed") else "success",
        "ExecMainStatus": str((unit.exit_status if unit else None) or 0),
    }
    wanted = flags.every("property") or list(properties)
    for key in wanted:
        if key in properties:
            value = properties[key]
            await call.out(value if flags.on("value") else f"{key}={value}")
    return 0


async def modprobe(host: LabHost, call: Call) -> int:
    """Load or remove kernel modules in the node's own list."""
    state = state_of(host)
    remove = "-r" in call.argv
    names = [arg for arg in call.argv[1:] if not arg.startswith("-")]
    names = names if "-a" in call.argv or remove else names[:1]
    for name in (given.replace("-", "_") for given in names):
        if name not in _MODULES:
            kernel = (await host.run("uname", "-r")).stdout.strip()
            await call.err(
                f"modprobe: FATAL: Module {name} not found in directory /lib/modules/{kernel}"
            )
            return 1
        if remove:
            state.modules.discard(name)
        else:
            state.modules.add(name)
            if name == "br_netfilter":
                await host.heal("br-netfilter-missing")
    return 0


async def lsmod(host: LabHost, call: Call) -> int:
    """List the node's loaded modules."""
    await call.out(f"{'Module':<19} {'Size':>8}  Used by")
    loaded = set(state_of(host).modules)
    if "br-netfilter-missing" in host.faults:
        loaded.discard("br_netfilter")
    for name in sorted(loaded):
        size, used, by = _MODULES[name]
        if by and by not in loaded:
            used, by = "0", ""
        await call.out(f"{name:<19} {size:>8}  {used} {by}".rstrip())
    return 0


def swap_is_on(host: LabHost) -> bool:
    """Return whether the node has a swap area in use."""
    return state_of(host).swap or "swap-on" in host.faults


async def swapoff(host: LabHost, call: Call) -> int:
    """Take every swap area out of use (`-a`)."""
    if not set(call.argv[1:]) & {"-a", "--all", "/swapfile"}:
        await call.err("swapoff: bad usage")
        await call.err("Try 'swapoff --help' for more information.")
        return 16
    await host.heal("swap-on")
    state_of(host).swap = False
    return 0


async def swapon(host: LabHost, call: Call) -> int:
    """Show the swap areas, or take them into use."""
    args = set(call.argv[1:])
    if args & {"-a", "--all", "/swapfile"}:
        state_of(host).swap = True
        return 0
    if not swap_is_on(host):
        return 0
    if "--show=NAME" in args:
        await call.out("/swapfile" if "--noheadings" in args else "NAME\n/swapfile")
        return 0
    if "--noheadings" not in args:
        await call.out("NAME      TYPE SIZE USED PRIO")
    await call.out("/swapfile file   2G   0B   -2")
    return 0
