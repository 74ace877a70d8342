"""Labels and taints on the Nodes, the parameters' and the plugin's: what is missing is added.

Nothing is taken away.

Others label Nodes too (the plugin, the cloud, people), so that what the parameters do not name is
none of the kit's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from kitlib.command import Cmd
from kitlib.inventory import Host, Taint
from kitlib.kube import Obj
from kitlib.model import Check
from kitlib.plugins import Plugin
from kitlib.stages.base import Action, Context, Hands
from kitlib.stages.configuration import KUBECONFIG

__all__ = ["mark", "missing", "node_marks", "nodes_by_name", "plugin_labels", "with_plugin"]


def with_plugin(host: Host, plugin: Plugin) -> Host:
    """Return the host with the labels that the plugin looks for; the parameters' own go first."""
    needs = plugin.needs
    labels = {**needs.node_labels, **(needs.control_plane_labels if host.is_control_plane else {})}
    mine = {key: value.replace("{node}", host.name) for key, value in labels.items()}
    return replace(host, labels={**mine, **host.labels})


def nodes_by_name(ctx: Context) -> dict[str, Obj]:
    """Return the cluster's Nodes by name; none before there is a cluster (a dry run's plan)."""
    if not ctx.facts()[ctx.administrator.name].kubeadm.initialised:
        return {}
    return {node["metadata"]["name"]: node for node in ctx.kube().items("/api/v1/nodes")}


def plugin_labels(ctx: Context) -> list[Action]:
    """Return what labels the Nodes that there are, before the plugin that looks for it is applied.

    Those that join later get theirs then.
    """
    needs = ctx.plugin.needs
    if not needs.node_labels and not needs.control_plane_labels:
        return []
    nodes = nodes_by_name(ctx)
    there = [host for host in ctx.hosts if host.name in nodes or host == ctx.administrator]
    return [
        action
        for host in there
        for action in mark(ctx, replace(host, labels={}, taints=()), nodes.get(host.name))
    ]


def missing(host: Host, node: Obj | None) -> tuple[list[str], list[str]]:
    """Return the labels (`key=value`) and taints of the parameters that a Node lacks.

    Args:
        host: The host.
        node: Its Node; None where there is none yet, which lacks them all.
    """
    labels = ((node or {}).get("metadata") or {}).get("labels") or {}
    taints = {_shown(taint) for taint in ((node or {}).get("spec") or {}).get("taints") or []}
    return (
        [f"{key}={value}" for key, value in host.labels.items() if labels.get(key) != value],
        [str(taint) for taint in host.taints if _normal(taint) not in taints],
    )


def mark(ctx: Context, host: Host, node: Obj | None) -> list[Action]:
    """Return the changes that give a Node its labels and taints; none where it has them all.

    They come in the host's own turn, after its join; what is done is what is missing then.
    """
    host = with_plugin(host, ctx.plugin)
    return [
        Action(host.name, _what(kind, words), command, do=_doer(ctx, host, kind))
        for kind, words, command in _commands(host, *missing(host, node))
    ]


def node_marks(host: Host, node: Obj | None) -> list[Check]:
    """Return whether a Node has its labels and taints; nothing where none is wanted."""
    if not host.labels and not host.taints:
        return []
    lacking = [word for words in missing(host, node) for word in words]
    return [
        Check.that(
            not lacking,
            "join.marks",
            host.name,
            "its Node has the labels and taints of the parameters and of the plugin",
            got=f"without {', '.join(lacking)}" if lacking else "has them",
            expected=", ".join(
                [*(f"{k}={v}" for k, v in host.labels.items()), *map(str, host.taints)]
            ),
            remedy="run the join stage again: it adds them",
        )
    ]


def _doer(ctx: Context, host: Host, kind: str) -> Callable[[Hands], None]:
    def do(hands: Hands) -> None:
        node = hands.kube().find(f"/api/v1/nodes/{host.name}")
        for each, _, command in _commands(host, *missing(host, node)):
            if each == kind:
                hands.run(ctx.administrator.name, command)

    return do


def _commands(
    host: Host, labels: list[str], taints: list[str]
) -> Iterator[tuple[str, list[str], Cmd]]:
    for kind, words in (("label", labels), ("taint", taints)):
        if words:
            argv = ("kubectl", kind, "node", host.name, *words, "--overwrite")
            yield kind, words, Cmd.change(*argv, env=KUBECONFIG)


def _what(kind: str, words: list[str]) -> str:
    return f"{kind} its Node: {', '.join(words)}"


def _shown(taint: Obj) -> str:
    return f"{taint['key']}={taint.get('value') or ''}:{taint['effect']}"


def _normal(taint: Taint) -> str:
    """Return a taint of the parameters in the one form: `key:Effect` has an empty value."""
    return f"{taint.key}={taint.value}:{taint.effect}"
