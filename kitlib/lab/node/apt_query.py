"""apt-cache and apt-mark: what there is, and what is held."""

from __future__ import annotations

from kitlib.lab.hostapi import Call, LabHost
from kitlib.lab.node.apt import ARCHIVE
from kitlib.lab.node.packages import candidate, offered, package
from kitlib.lab.node.state import state_of

__all__ = ["apt_cache", "apt_mark"]


async def apt_cache(host: LabHost, call: Call) -> int:
    """Run `apt-cache policy` and `apt-cache madison`."""
    verb, *names = [arg for arg in call.argv[1:] if not arg.startswith("-")] or [""]
    if verb not in ("policy", "madison"):
        await call.err(f"E: Invalid operation {verb}")
        return 100
    state = state_of(host)
    for name in names:
        if package(name) is None:
            await call.err(f"N: Unable to locate package {name}")
        elif verb == "madison":
            for version in offered(name):
                await call.out(
                    f"{name:>10} | {version:>10} | {ARCHIVE.rpartition(' ')[0]} amd64 Packages"
                )
        else:
            have = state.packages.get(name)
            await call.out(f"{name}:")
            await call.out(f"  Installed: {have or '(none)'}")
            await call.out(f"  Candidate: {candidate(host, name)}")
            await call.out("  Version table:")
            for version in offered(name):
                mark = "***" if version == have else "   "
                await call.out(f" {mark} {version} 500")
                await call.out(f"        500 {ARCHIVE.rpartition(' ')[0]} amd64 Packages")
    return 0


async def apt_mark(host: LabHost, call: Call) -> int:
    """Run apt-mark hold, unhold and showhold."""
    verb, *names = [arg for arg in call.argv[1:] if not arg.startswith("-")] or [""]
    state = state_of(host)
    if verb == "showhold":
        for name in sorted(state.held & set(names) if names else state.held):
            await call.out(name)
        return 0
    if verb not in ("hold", "unhold"):
        await call.err(f"E: Invalid operation {verb}")
        return 100
    for name in names:
        if package(name) is None:
            await call.err(f"E: Unable to locate package {name}")
            await call.err("E: No packages found")
            return 100
    for name in names:
        if verb == "hold":
            already = name in state.held
            state.held.add(name)
            await call.out(
                f"{name} was already set on hold." if already else f"{name} set on hold."
            )
        elif name in state.held:
            state.held.discard(name)
            await call.out(f"Canceled hold on {name}.")
        else:
            await call.out(f"{name} was already not on hold.")
    return 0
