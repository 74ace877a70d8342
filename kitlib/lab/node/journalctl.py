"""journalctl over what the host's units logged."""

from __future__ import annotations

import datetime as dt
import json
import re
import time

from kitlib.lab.hostapi import Call, LabHost
from kitlib.lab.node.flags import FlagError, parse
from kitlib.lab.node.state import state_of

__all__ = ["journalctl", "short_line"]

_IDENTIFIER = re.compile(r"^([\w.-]+)(?:\[(\d+)\])?: ")
_KLOG = re.compile(r"^[IWEF]\d{4} [\d:.]+ +(\d+) ")
_RELATIVE = re.compile(r"^-?\s*(\d+)\s*(s|sec|second|m|min|minute|h|hour|d|day)s?(?:\s+ago)?$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def short_line(host: LabHost, unit: str, at: float, text: str) -> str:
    """Return one journal line in journalctl's default format."""
    who, message = _split(host, unit, text)
    stamp = dt.datetime.fromtimestamp(at, dt.UTC).strftime("%b %d %H:%M:%S")
    return f"{stamp} {host.name} {who}: {message}"


async def journalctl(host: LabHost, call: Call) -> int:
    """Print the journal of one or several units."""
    try:
        flags = parse(
            call.argv[1:],
            takes=("unit", "lines", "since", "until", "output", "grep"),
            switches=("no-pager", "quiet", "reverse", "boot", "catalog", "pager-end", "utc"),
            short={
                "u": "unit",
                "n": "lines",
                "S": "since",
                "U": "until",
                "o": "output",
                "q": "quiet",
                "r": "reverse",
                "b": "boot",
                "x": "catalog",
                "e": "pager-end",
                "g": "grep",
            },
        )
        since = _when(flags.get("since"))
        until = _when(flags.get("until"))
    except FlagError as wrong:
        unknown = str(wrong).removeprefix("unknown flag: ")
        await call.err(f"journalctl: unrecognized option '{unknown}'")
        return 1
    except ValueError as wrong:
        await call.err(f"Failed to parse timestamp: {wrong}")
        return 1
    style = flags.get("output", "short")
    if style not in _STYLES:
        await call.err(f"Unknown output format '{style}'.")
        return 1
    names = [name.removesuffix(".service") for name in flags.every("unit")]
    entries = sorted(
        (at, unit, text)
        for unit in names or list(state_of(host).services)
        for at, text in host.journal(unit)
        if (since is None or at >= since) and (until is None or at <= until)
    )
    if flags.get("grep"):
        entries = [entry for entry in entries if re.search(flags.get("grep"), entry[2])]
    if "lines" in flags and flags.get("lines") != "all":
        entries = entries[-int(flags.get("lines")) :] if int(flags.get("lines")) else []
    if flags.on("reverse"):
        entries.reverse()
    if not entries and not flags.on("quiet"):
        await call.out("-- No entries --")
    for at, unit, text in entries:
        await call.out(_line(host, style, unit, at, text))
    return 0


_STYLES = ("short", "short-iso", "short-precise", "short-iso-precise", "cat", "json")


def _line(host: LabHost, style: str, unit: str, at: float, text: str) -> str:
    if style == "short":
        return short_line(host, unit, at, text)
    who, message = _split(host, unit, text)
    if style == "cat":
        return message
    moment = dt.datetime.fromtimestamp(at, dt.UTC)
    if style == "json":
        name = who.partition("[")[0]
        return json.dumps(
            {
                "__REALTIME_TIMESTAMP": str(int(at * 1_000_000)),
                "_HOSTNAME": host.name,
                "_SYSTEMD_UNIT": f"{unit}.service",
                "SYSLOG_IDENTIFIER": name,
                "MESSAGE": message,
            }
        )
    stamp = {
        "short-iso": f"{moment:%Y-%m-%dT%H:%M:%S}+0000",
        "short-precise": f"{moment:%b %d %H:%M:%S.%f}",
        "short-iso-precise": f"{moment:%Y-%m-%dT%H:%M:%S.%f}+0000",
    }[style]
    return f"{stamp} {host.name} {who}: {message}"


def _split(host: LabHost, unit: str, text: str) -> tuple[str, str]:
    """Return who logged a line (`kubelet[214]`) and the message."""
    named = _IDENTIFIER.match(text)
    if named and named.group(1) in ("systemd", unit):
        return text[: named.end() - 2], text[named.end() :]
    if logged := _KLOG.match(text):
        return f"{unit}[{logged.group(1)}]", text
    service = state_of(host).services.get(unit)
    return f"{unit}[{service.pid if service and service.pid else 1}]", text


def _when(text: str) -> float | None:
    """Return a `--since` time as seconds since the epoch; None when the flag is not given."""
    if not text:
        return None
    relative = _RELATIVE.match(text)
    if relative:
        return time.time() - int(relative.group(1)) * _SECONDS[relative.group(2)[0]]
    if text.startswith("@"):
        return float(text[1:])
    if text == "now":
        return time.time()
    if text in ("today", "yesterday"):
        midnight = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight.timestamp() - (86400 if text == "yesterday" else 0)
    try:
        moment = dt.datetime.fromisoformat(text.removesuffix(" UTC").replace(" ", "T", 1))
    except ValueError:
        raise ValueError(text) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
