"""apt-get over the lab's package archive."""

from __future__ import annotations

from dataclasses import dataclass, field

from kitlib.lab.hostapi import Call, LabHost
from kitlib.lab.node import apt_files
from kitlib.lab.node.apt_files import AptError
from kitlib.lab.node.flags import FlagError, Flags, parse
from kitlib.lab.node.packages import (
    candidate,
    depends,
    install_files,
    minor_of,
    newer,
    package,
    remove_files,
)
from kitlib.lab.node.state import NodeState, state_of

__all__ = ["ARCHIVE", "apt_get"]

ARCHIVE = "http://10.77.0.1/debian kubernetes/main amd64"
_SWITCHES = (
    "yes",
    "assume-yes",
    "quiet",
    "allow-downgrades",
    "allow-change-held-packages",
    "allow-unauthenticated",
    "no-install-recommends",
    "install-recommends",
    "purge",
    "reinstall",
    "only-upgrade",
    "dry-run",
    "simulate",
    "fix-missing",
    "auto-remove",
    "autoremove",
    "download-only",
)
_SHORT = {"y": "yes", "q": "quiet", "o": "option", "s": "dry-run", "d": "download-only"}


@dataclass(slots=True)
class _Plan:
    """What one install would do, package -> version."""

    named: list[str] = field(default_factory=list)
    new: dict[str, str] = field(default_factory=dict)
    upgrade: dict[str, str] = field(default_factory=dict)
    downgrade: dict[str, str] = field(default_factory=dict)
    newest: list[str] = field(default_factory=list)
    again: dict[str, str] = field(default_factory=dict)

    def all(self) -> dict[str, str]:
        """Return every change, in the order in which packages are unpacked."""
        return dict(sorted((self.new | self.upgrade | self.downgrade | self.again).items()))


async def apt_get(host: LabHost, call: Call) -> int:
    """Run apt-get; returns 100 on any error, as apt does."""
    try:
        flags = parse(
            call.argv[1:], takes=("option", "target-release"), switches=_SWITCHES, short=_SHORT
        )
    except FlagError as wrong:
        shown = str(wrong).removeprefix("unknown flag: --")
        await call.err(
            f"E: Command line option --{shown} is not understood in combination with "
            "the other options"
        )
        return 100
    verb, *names = flags.rest or ("",)
    state = state_of(host)
    if verb not in _VERBS:
        await call.err(f"E: Invalid operation {verb}")
        return 100
    if verb in ("clean", "autoclean", "check"):
        return 0
    if state.dpkg_lock.locked():
        await call.err(
            "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process "
            f"{state.next_pid} (apt-get)"
        )
        await call.err(
            "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), "
            "is another process using it?"
        )
        return 100
    async with state.dpkg_lock:
        try:
            if verb == "update":
                return await _update(host, call)
            if verb == "download":
                return await apt_files.download(host, call, names)
            if verb == "install" and _on_empty_status(flags):
                return await apt_files.simulated(host, call, names)
            if verb == "install":
                return await _install(host, call, names, flags)
            if verb in ("remove", "purge"):
                return await _remove(host, call, names, flags, verb == "purge" or flags.on("purge"))
            return await _reading(
                host, call, "0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded."
            )
        except AptError as failed:
            for line in failed.args:
                await call.err(f"E: {line}")
            return 100


_VERBS = (
    "update",
    "install",
    "download",
    "remove",
    "purge",
    "autoremove",
    "upgrade",
    "clean",
    "autoclean",
    "check",
)


async def _update(host: LabHost, call: Call) -> int:
    await host.sleep(1.0)
    if "no-route-out" in host.faults:
        await call.out("Err:1 http://10.77.0.1/debian kubernetes InRelease")
        await call.out("  Could not connect to 10.77.0.1:80 (10.77.0.1). - connect (113: No route)")
        await call.err(
            "W: Failed to fetch http://10.77.0.1/debian/dists/kubernetes/InRelease  Could not "
            "connect to 10.77.0.1:80 (10.77.0.1)."
        )
        await call.err(
            "W: Some index files failed to download. They have been ignored, or old ones used "
            "instead."
        )
        return 0
    await call.out("Hit:1 http://10.77.0.1/debian kubernetes InRelease")
    await call.out("Reading package lists...")
    return 0


def _on_empty_status(flags: Flags) -> bool:
    """Return whether a simulation is asked for as on a system with nothing installed."""
    simulated = flags.on("dry-run") or flags.on("simulate")
    return simulated and any(
        option.startswith("Dir::State::status=") for option in flags.values.get("option", ())
    )


async def _reading(host: LabHost, call: Call, *then: str) -> int:
    await host.sleep(0.28)
    for line in (
        "Reading package lists...",
        "Building dependency tree...",
        "Reading state information...",
    ):
        await call.out(line)
    for line in then:
        await call.out(line)
    return 0


async def _install(host: LabHost, call: Call, names: list[str], flags: Flags) -> int:
    state = state_of(host)
    await _reading(host, call)
    local = apt_files.local(host, names)
    plan = _plan_install(host, [local.get(name, name) for name in names])
    given = {each.partition("=")[0] for each in local.values()}
    if "no-route-out" in host.faults and (lacks := sorted(set(plan.all()) - given)):
        raise AptError(
            *(f"Failed to fetch {ARCHIVE.split()[0]}/{name}: no route to host" for name in lacks)
        )
    if flags.on("reinstall"):
        plan.again = {name: state.packages[name] for name in plan.newest}
    for name in plan.newest if not plan.again else ():
        await call.out(f"{name} is already the newest version ({state.packages[name]}).")
    changes = plan.all()
    extra = sorted(set(plan.new) - set(plan.named))
    await _listed(call, "The following additional packages will be installed:", extra)
    held = sorted(set(changes) & state.held)
    await _listed(call, "The following held packages will be changed:", held)
    await _listed(call, "The following NEW packages will be installed:", sorted(plan.new))
    await _listed(call, "The following packages will be upgraded:", sorted(plan.upgrade))
    await _listed(call, "The following packages will be DOWNGRADED:", sorted(plan.downgrade))
    down = f"{len(plan.downgrade)} downgraded, " if plan.downgrade else ""
    down += f"{len(plan.again)} reinstalled, " if plan.again else ""
    await call.out(
        f"{len(plan.upgrade)} upgraded, {len(plan.new)} newly installed, {down}"
        "0 to remove and 0 not upgraded."
    )
    if not changes:
        return 0
    yes = flags.on("yes") or flags.on("assume-yes")
    if held and yes and not flags.on("allow-change-held-packages"):
        raise AptError(
            "Held packages were changed and -y was used without --allow-change-held-packages."
        )
    if plan.downgrade and yes and not flags.on("allow-downgrades"):
        raise AptError("Packages were downgraded and -y was used without --allow-downgrades.")
    if flags.on("dry-run") or flags.on("simulate"):
        for name, version in changes.items():
            await call.out(f"Inst {name} ({version} kubernetes:main [amd64])")
        return 0
    found = [item for item in map(package, changes) if item is not None]
    await call.out(f"Need to get {_size(sum(item.kilobytes for item in found))} of archives.")
    await call.out(
        f"After this operation, {_size(sum(item.installed for item in found))} "
        "of additional disk space will be used."
    )
    if not yes and (await call.read_stdin()).strip().lower() not in ("y", "yes"):
        await call.out("Do you want to continue? [Y/n] Abort.")
        return 1
    if "disk-full" in host.faults:
        raise AptError("You don't have enough free space in /var/cache/apt/archives/.")
    await _fetch_and_unpack(host, call, changes)
    return 0


async def _fetch_and_unpack(host: LabHost, call: Call, changes: dict[str, str]) -> None:
    state = state_of(host)
    total = 0
    for number, (name, version) in enumerate(changes.items(), 1):
        found = package(name)
        size = found.kilobytes if found else 0
        total += size
        await host.sleep(size / 60_000)
        await call.out(f"Get:{number} {ARCHIVE} {name} {version} [{_size(size)}]")
    await call.out(f"Fetched {_size(total)} in {max(1, total // 60_000)}s (60.0 MB/s)")
    first = True
    for name, version in changes.items():
        await host.sleep(0.4)
        old = state.packages.get(name)
        if old is None:
            await call.out(f"Selecting previously unselected package {name}.")
        elif newer(old, version):
            await call.err(f"dpkg: warning: downgrading {name} from {old} to {version}")
        if first:
            await call.out(
                "(Reading database ... 12481 files and directories currently installed.)"
            )
        first = False
        await call.out(
            f"Preparing to unpack .../{name}_{version.replace(':', '%3a')}_amd64.deb ..."
        )
        over = f" over ({old})" if old else ""
        await call.out(f"Unpacking {name} ({version}){over} ...")
    for name, version in sorted(changes.items(), key=_setup_order):
        await host.sleep(0.3)
        fresh = name not in state.packages
        await call.out(f"Setting up {name} ({version}) ...")
        if name == "kubelet" and fresh:
            await call.out(
                "Created symlink /etc/systemd/system/multi-user.target.wants/kubelet.service"
                " → /lib/systemd/system/kubelet.service."
            )
        await install_files(host, name, version)


def _setup_order(change: tuple[str, str]) -> tuple[int, str]:
    """Return a sort key that sets packages up behind what they depend on."""
    order = {"kubelet": 1, "kubeadm": 2}
    return order.get(change[0], 0), change[0]


def _plan_install(host: LabHost, names: list[str]) -> _Plan:
    """Return what installing these packages means.

    Raises:
        AptError: A package or a version is not in the archive.
    """
    state = state_of(host)
    wanted: dict[str, str] = {}
    for given in names:
        name, _, version = given.partition("=")
        if package(name) is None:
            raise AptError(f"Unable to locate package {name}")
        found = candidate(host, name, version)
        if not found:
            raise AptError(f"Version '{version}' for '{name}' was not found")
        if not version and name in state.packages and not newer(found, state.packages[name]):
            found = state.packages[name]
        wanted[name] = found
    plan = _Plan(named=list(wanted))
    _add_dependencies(
        host, state, wanted, {given.partition("=")[0] for given in names if "=" in given}
    )
    for name, version in wanted.items():
        old = state.packages.get(name)
        if old is None:
            plan.new[name] = version
        elif newer(version, old):
            plan.upgrade[name] = version
        elif newer(old, version):
            plan.downgrade[name] = version
        elif name in plan.named:
            plan.newest.append(name)
    return plan


def _add_dependencies(
    host: LabHost, state: NodeState, wanted: dict[str, str], exact: set[str]
) -> None:
    """Add what the wanted packages need and the host lacks or has too old.

    Raises:
        AptError: A dependency was asked for in a version that does not fit.
    """
    queue = list(wanted)
    while queue:
        name = queue.pop(0)
        for needed in depends(name, wanted[name]):
            minor = minor_of(wanted[name])
            if needed in ("kubelet", "kubectl"):
                fits = candidate(host, needed) if needed not in wanted else wanted[needed]
            else:
                fits = candidate(host, needed, minor=minor)
            have = wanted.get(needed) or state.packages.get(needed)
            if have is None or (
                needed == "kubernetes-cni" and minor >= 28 and newer("1.2.0", have)
            ):
                if needed in exact:
                    raise AptError("Unable to correct problems, you have held broken packages.")
                wanted[needed] = fits
                queue.append(needed)


async def _remove(host: LabHost, call: Call, names: list[str], flags: Flags, purge: bool) -> int:
    state = state_of(host)
    await _reading(host, call)
    gone: set[str] = set()
    for name in names:
        if package(name) is None and name not in state.packages:
            raise AptError(f"Unable to locate package {name}")
        if name not in state.packages and not (purge and name in state.removed):
            await call.out(f"Package '{name}' is not installed, so not removed")
        else:
            gone.add(name)
    grown = True
    while grown:
        needy = {
            name
            for name, version in state.packages.items()
            if name not in gone and set(depends(name, version)) & gone
        }
        grown = bool(needy)
        gone |= needy
    if gone:
        mark = "*" if purge else ""
        await _listed(
            call, "The following packages will be REMOVED:", [n + mark for n in sorted(gone)]
        )
    held = sorted(gone & state.held)
    await _listed(call, "The following held packages will be changed:", held)
    await call.out(f"0 upgraded, 0 newly installed, {len(gone)} to remove and 0 not upgraded.")
    if not gone:
        return 0
    yes = flags.on("yes") or flags.on("assume-yes")
    if held and yes and not flags.on("allow-change-held-packages"):
        raise AptError(
            "Held packages were changed and -y was used without --allow-change-held-packages."
        )
    if not yes and (await call.read_stdin()).strip().lower() not in ("y", "yes"):
        await call.out("Do you want to continue? [Y/n] Abort.")
        return 1
    await call.out("(Reading database ... 12481 files and directories currently installed.)")
    for name in sorted(gone, key=lambda name: _setup_order((name, "")), reverse=True):
        await host.sleep(0.3)
        if name in state.packages:
            version = state.packages[name]
            await call.out(f"Removing {name} ({version}) ...")
            await remove_files(host, name, purge=purge)
        else:
            version = state.removed.pop(name)
        if purge and name in ("kubelet", "kubeadm", "containerd"):
            await call.out(f"Purging configuration files for {name} ({version}) ...")
    return 0


async def _listed(call: Call, title: str, names: list[str]) -> None:
    if names:
        await call.out(title)
        await call.out("  " + " ".join(names))


def _size(kilobytes: int) -> str:
    """Return a size the way apt prints it."""
    if kilobytes >= 100_000:
        return f"{kilobytes / 1000:.0f} MB"
    return f"{kilobytes / 1000:.1f} MB" if kilobytes >= 1000 else f"{kilobytes} kB"
