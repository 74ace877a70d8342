"""etcdctl for the etcd pods: members, their health, and taking one out.

It speaks with the emulated members' own port, whatever endpoint and certificates it is given, and
prints what etcdctl 3.5 prints.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any
from urllib.parse import urlsplit

from kitlib.lab.api.members import ask, member_id

__all__ = ["main"]

_CLUSTER = 0x1D3A_7C11_0E5B_42F6


async def main(argv: list[str]) -> int:
    """Run one command; return the exit status."""
    flags = dict(word[2:].partition("=")[::2] for word in argv if word.startswith("--"))
    words = [word for word in argv if not word.startswith("-")]
    endpoint = flags.get("endpoints", "https://127.0.0.1:2379").split(",")[0]
    address = urlsplit(endpoint).hostname or "127.0.0.1"
    if words[:2] == ["member", "list"]:
        return await _list(address, flags.get("write-out", "simple"))
    if words[:2] == ["endpoint", "health"]:
        return await _health(address, endpoint, everywhere="cluster" in flags)
    if words[:2] == ["member", "remove"] and len(words) == 3:
        return await _remove(address, words[2])
    sys.stderr.write(f'Error: unknown command {" ".join(words)!r} for "etcdctl"\n')
    return 1


async def _list(address: str, style: str) -> int:
    answer = await _asked(address, {"op": "members"})
    if answer is None:
        return 1
    rows = []
    for name, member in sorted(answer["members"].items()):
        peer, client = (f"https://{member['address']}:{port}" for port in (2380, 2379))
        started = bool(member["started"])
        rows.append(
            {
                "ID": member_id(name),
                **({"name": name} if started else {}),
                "peerURLs": [peer],
                **({"clientURLs": [client]} if started else {}),
            }
        )
    if style == "json":
        header = {"cluster_id": _CLUSTER, "member_id": member_id(answer["leader"]), "raft_term": 2}
        sys.stdout.write(json.dumps({"header": header, "members": rows}) + "\n")
        return 0
    for row in rows:
        state = "started" if "name" in row else "unstarted"
        urls = ", ".join([row["peerURLs"][0], *row.get("clientURLs", [""])])
        sys.stdout.write(f"{row['ID']:x}, {state}, {row.get('name', '')}, {urls}, false\n")
    return 0


async def _health(address: str, endpoint: str, *, everywhere: bool) -> int:
    """Ask one member, or every one, whether it is in touch with a majority."""
    endpoints = [endpoint]
    if everywhere:
        listed = await _asked(address, {"op": "members"})
        if listed is None:
            return 1
        started = (m["address"] for _, m in sorted(listed["members"].items()) if m["started"])
        endpoints = [f"https://{place}:2379" for place in started]
    results = await asyncio.gather(*map(_is_well, endpoints))
    for place, well in zip(endpoints, results, strict=True):
        if well:
            text = f"{place} is healthy: successfully committed proposal: took = 9.1ms"
            sys.stdout.write(f"{text}\n")
        else:
            text = f"{place} is unhealthy: failed to commit proposal: context deadline exceeded"
            sys.stderr.write(f"{text}\n")
    if all(results):
        return 0
    sys.stderr.write("Error: unhealthy cluster\n")
    return 1


async def _is_well(endpoint: str) -> bool:
    try:
        answer = await ask(urlsplit(endpoint).hostname or "127.0.0.1", {"op": "members"})
    except OSError:
        return False
    return "error" not in answer


async def _remove(address: str, number: str) -> int:
    answer = await _asked(address, {"op": "remove", "id": int(number, 16)})
    if answer is None:
        return 1
    sys.stdout.write(f"Member {number:>16} removed from cluster {_CLUSTER:x}\n")
    return 0


async def _asked(address: str, request: dict[str, Any]) -> dict[str, Any] | None:
    """Return a member's answer; None where it refused, which is said."""
    try:
        answer = await ask(address, request)
    except OSError:
        answer = {"error": "context deadline exceeded"}
    if "error" in answer:
        sys.stderr.write(f"Error: {answer['error']}\n")
        return None
    return answer


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
