"""Keeping what would be gone tomorrow: events, the plugin's logs, the kubelets' journals.

Taken at the end of every stage and on failure. It must never hide the failure that it documents: a
part that cannot be had is noted and passed over, within bounded time.
"""

from __future__ import annotations

import json

from kitlib.command import script
from kitlib.errors import KitError
from kitlib.fanout import fan_out
from kitlib.kube import Kube, Obj
from kitlib.stages.base import Context
from kitlib.stages.observe import container_states, plugin_pods

__all__ = ["snapshot"]

LINES = "300"
SECONDS = 15.0
_JOURNAL = script(
    f"if command -v journalctl >/dev/null; then journalctl -u kubelet --no-pager -n {LINES}; fi",
    timeout=SECONDS,
)


def snapshot(ctx: Context) -> None:
    """Write the evidence of this moment below raw/snapshots/<stage>/."""
    folder = f"snapshots/{ctx.journal.stage}"
    names = [host.name for host in ctx.hosts if host.name not in ctx.absent]

    def journal_of(name: str) -> None:
        result = ctx.doors.quietly(name, _JOURNAL)
        ctx.journal.keep(f"{folder}/{name}-kubelet.log", result.stdout + result.stderr)

    missed = [f"{n}: {e}" for n, e in fan_out(journal_of, names).errors.items()]
    if ctx.doors.has_cluster():
        for what, work in (("events", _events), ("logs of the plugin", _logs)):
            try:
                work(ctx, folder)
            except KitError as error:
                missed.append(f"{what}: {error.message}")
    ctx.journal.event("snapshot", folder=f"raw/{folder}", missed=missed)


def _events(ctx: Context, folder: str) -> None:
    events = ctx.kube(wait=2).items("/api/v1/events")
    ctx.journal.keep(f"{folder}/events.json", json.dumps(events, indent=1))


def _logs(ctx: Context, folder: str) -> None:
    kube = ctx.kube(wait=2)

    def logs_of(pod: Obj) -> None:
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/log"
        for name, state in container_states(pod).items():
            once_more = {"previous": "true"} if state.get("restartCount") else None
            for suffix, query in (("", {}), ("-previous", once_more)):
                if query is not None:
                    text = _log(kube, path, {"container": name, "tailLines": LINES, **query})
                    ctx.journal.keep(f"{folder}/{meta['name']}-{name}{suffix}.log", text)

    pods = {pod["metadata"]["name"]: pod for pod in plugin_pods(kube, ctx.plugin)}
    fan_out(lambda name: logs_of(pods[name]), pods, workers=8).raise_first()


def _log(kube: Kube, path: str, query: dict[str, str]) -> str:
    try:
        return kube.text(path, **query)
    except KitError as error:
        return f"(not to be had: {error.message})\n"
