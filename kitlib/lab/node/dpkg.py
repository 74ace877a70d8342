"""dpkg -l, dpkg -S and dpkg-query -W over the packages that the node has."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from kitlib.lab.hostapi import Call, LabHost
from kitlib.lab.node.packages import CNI_PROGRAMS, package
from kitlib.lab.node.state import NodeState, state_of

__all__ = ["dpkg"]

_HEAD = (
    "Desired=Unknown/Install/Remove/Purge/Hold",
    "| Status=Not/Inst/Conf-files/Unpacked/halF-conf/Half-inst/trig-aWait/Trig-pend",
    "|/ Err?=(none)/Reinst-required (Status,Err: uppercase=bad)",
)
_VERBS = {
    **{verb: verb for verb in ("-l", "-W", "-s", "-S", "--print-architecture")},
    "--list": "-l",
    "--show": "-W",
    "--status": "-s",
    "--search": "-S",
}
_FIELD = re.compile(r"\$\{([^};]+)(?:;(-?\d+))?\}")


async def dpkg(host: LabHost, call: Call) -> int:
    """Run dpkg or dpkg-query: list (`-l`), show (`-W -f`), status (`-s`), search (`-S`)."""
    tool = call.argv[0]
    verb, layout, patterns = "", "${binary:Package}\\t${Version}\\n", []
    queue = list(call.argv[1:])
    while queue:
        arg = queue.pop(0)
        if arg in _VERBS:
            verb = _VERBS[arg]
        elif arg in ("-f", "--showformat") and queue:
            layout = queue.pop(0)
        elif arg.startswith(("-f=", "--showformat=")):
            layout = arg.partition("=")[2]
        elif arg.startswith("-f"):
            layout = arg[2:]
        elif arg.startswith("-") and arg not in ("--no-pager",):
            await call.err(f"{tool}: error: unknown option {arg}")
            return 2
        else:
            patterns.append(arg)
    state = state_of(host)
    if verb == "--print-architecture":
        await call.out("amd64")
        return 0
    if not verb:
        await call.err(f"{tool}: error: need an action option")
        return 2
    if verb == "-S":
        return await _search(call, state, patterns)
    known = sorted(state.packages | state.removed)
    chosen = [
        name
        for name in known
        if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
    ]
    missing = [
        pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in known)
    ]
    if verb == "-l":
        if chosen:
            await _list(call, state, chosen)
    elif verb == "-W":
        text = "".join(_fill(layout, state, name) for name in chosen)
        for line in text.splitlines():
            await call.out(line)
    else:
        for name in chosen:
            await call.out(f"Package: {name}")
            await call.out(f"Status: {_status(state, name)}")
            await call.out("Architecture: amd64")
            await call.out(f"Version: {_version(state, name)}")
    for pattern in missing:
        if verb == "-s":
            await call.err(
                f"dpkg-query: package '{pattern}' is not installed and no information is available"
            )
        else:
            await call.err(f"dpkg-query: no packages found matching {pattern}")
    return 1 if missing else 0


async def _search(call: Call, state: NodeState, paths: list[str]) -> int:
    """Say which package each file is from, as far as packages of the lab bring files."""
    status = 0
    for path in paths:
        folder, _, name = path.rpartition("/")
        ours = folder == "/opt/cni/bin" and name in CNI_PROGRAMS
        if ours and "kubernetes-cni" in state.packages:
            await call.out(f"kubernetes-cni: {path}")
        else:
            await call.err(f"dpkg-query: no path found matching pattern {path}")
            status = 1
    return status


async def _list(call: Call, state: NodeState, names: list[str]) -> None:
    rows = [(name, _version(state, name), _summary(name)) for name in names]
    wide = [max(14, *(len(row[0]) for row in rows)), max(12, *(len(row[1]) for row in rows))]
    for line in _HEAD:
        await call.out(line)
    await call.out(f"||/ {'Name':<{wide[0]}} {'Version':<{wide[1]}} Architecture Description")
    await call.out(f"+++-{'=' * wide[0]}-{'=' * wide[1]}-============-{'=' * 33}")
    for name, version, summary in rows:
        flag = "rc" if name not in state.packages else "hi" if name in state.held else "ii"
        await call.out(
            f"{flag}  {name:<{wide[0]}} {version:<{wide[1]}} {'amd64':<12} {summary}".rstrip()
        )


def _fill(layout: str, state: NodeState, name: str) -> str:
    """Return a show format with the fields of one package filled in."""
    status = _status(state, name)
    fields = {
        "Package": name,
        "binary:Package": name,
        "Version": _version(state, name),
        "Status": status,
        "db:Status-Abbrev": {"hold": "hi ", "deinstall": "rc "}.get(status.split()[0], "ii "),
        "db:Status-Status": status.split()[-1],
        "Architecture": "amd64",
        "Priority": "optional",
        "Essential": "no",
        "binary:Summary": _summary(name),
    }

    def value(match: re.Match[str]) -> str:
        text = fields.get(match.group(1), "")
        width = int(match.group(2) or 0)
        return text.ljust(-width) if width < 0 else text.rjust(width)

    filled = _FIELD.sub(value, layout)
    return filled.replace("\\n", "\n").replace("\\t", "\t")


def _status(state: NodeState, name: str) -> str:
    if name not in state.packages:
        return "deinstall ok config-files"
    return ("hold" if name in state.held else "install") + " ok installed"


def _version(state: NodeState, name: str) -> str:
    return state.packages.get(name) or state.removed[name]


def _summary(name: str) -> str:
    found = package(name)
    return found.summary if found else ""
