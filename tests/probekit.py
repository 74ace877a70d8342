"""What a probe's parser makes of a text, as plain data that a golden case can hold."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from kitlib.probes import curl, dig, dns, fping, http, iperf3, mtu, ping, routes, tcp, tools
from kitlib.probes.timed import Sample


def words(sample: Sample) -> str:
    """Return a sample in one line: its number, its time or how it ended, and what is odd."""
    said = "answered" if sample.untimed else "lost" if sample.lost else f"{sample.rtt_ms:g}"
    odd = [name for name in ("duplicate", "reordered") if getattr(sample, name)]
    server = [f"by {sample.server}"] if sample.server else []
    why = [f"({sample.reason})"] if sample.reason else []
    return " ".join([str(sample.seq), said, *odd, *server, *why])


def plain(value: Any) -> Any:
    """Return the fields of a result that are not what they are by default."""
    if isinstance(value, Sample):
        return words(value)
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {
            name: plain(each)
            for name, each in fields.items()
            if each not in (None, "", (), False) and not _nan(each)
        }
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return sorted(value) if isinstance(value, frozenset) else value


def _nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _mtu(case: dict[str, Any]) -> Any:
    found = mtu.parse(case["text"])
    told = {"passes": found.passes, "fails": found.fails, "exact": found.exact}
    told |= {"claimed": found.claimed, "interface": found.interface}
    tried = [f"{each.size}{'' if each.passed else ' no'}" for each in found.attempts]
    return told | {"tried": ", ".join(tried)} | ({"reason": found.reason} if found.reason else {})


def _curl(case: dict[str, Any]) -> Any:
    exchanges = curl.parse(case["text"], count=case["count"])
    return {
        "connects": plain(curl.connects(exchanges)),
        "responses": plain(curl.responses(exchanges)),
        "wholes": plain(curl.wholes(exchanges)),
    }


def _dig(case: dict[str, Any]) -> Any:
    lookups = dig.parse(case["text"], count=case["count"])
    return {"lookups": plain(lookups), "times": plain(dig.times(lookups))}


PARSERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "ping": lambda case: plain(ping.parse(case["text"], count=case["count"])),
    "fping": lambda case: plain(fping.parse(case["text"], count=case["count"])),
    "curl": _curl,
    "wget": lambda case: plain(http.parse(case["stdout"], case["stderr"], case["exit_status"])),
    "nc": lambda case: plain(tcp.parse(case["text"])),
    "dig": _dig,
    "nslookup": lambda case: plain(dns.parse(case["text"])),
    "mtu": _mtu,
    "routes": lambda case: plain(routes.parse(case["text"])),
    "iperf3": lambda case: plain(iperf3.parse(case["text"])),
    "iperf3_server": lambda case: iperf3.parse_server(case["text"]),
    "tools": lambda case: plain(tools.parse(case["text"])),
}
"""Directory below tests/data/probes -> what is compared with a case's `expect`."""
