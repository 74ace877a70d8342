"""Labels and taints on the Nodes, those of the parameters and the labels that the plugin needs.

What is missing is added and nothing taken away: others label Nodes too (the plugin, the cloud,
people), and what is not named here is none of the kit's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kitlib.command import Cmd
from kitlib.inventory import Host, Taint
from kitlib.kube import Obj
from kitlib.model import Check
from kitlib.plugins import Plugin
from kitlib.stages.base import Action, Context, Hands
from kitlib.stages.configuration import KUBECONFIG

__all__ = ["mark", "missing", "node_marks", "plugin_label_checks", "plugin_labels"]


def needed(plugin: Plugin, host: Host) -> dict[str, str]:
    """Return the labels that a plugin needs on a host's Node; the parameters' go before them."""
    needs = plugin.needs
    labels = {**needs.node_labels, **(needs.control_plane_labels if host.is_control_plane else {})}
    return {
        key: value.replace("{node}", host.name)
        for key, value in labels.items()
        if key not in host.labels
    }


def missing(host: Host, node: Obj | None, plugin: Plugin) -> tuple[list[str], list[str]]:
    """Return the labels (`key=value`) and taints that a Node lacks.

    Args:
        host: The host, with those that the parameters want.
        node: Its Node; None where there is none yet, which lacks them all.
        plugin: The plugin, with those that it needs.
    """
    wanted = {**needed(plugin, host), **host.labels}
    labels = ((node or {}).get("metadata") or {}).get("labels") or {}
    taints = {_shown(taint) for taint in ((node or {}).get("spec") or {}).get("taints") or []}
    return (
        [f"{key}={value}" for key, value in wanted.items() if labels.get(key) != value],
        [str(taint) for taint in host.taints if _normal(taint) not in taints],
    )


def mark(ctx: Context, host: Host, node: Obj | None) -> list[Action]:
    """Return the changes that give a Node its labels and taints; none where it has them all.

    They come in the host's own turn, after its join; what is done is what is missing then.
    """
    return [
        Action(host.name, _what(kind, words), command, do=_doer(ctx, host, kind))
        for kind, words, command in _commands(host, *missing(host, node, ctx.plugin))
    ]


def plugin_labels(ctx: Context) -> list[Action]:
    """Return the changes that give the Nodes that there are the labels that the plugin needs.

    They are made on the control plane, so that they come before the plugin's objects.
    """
    actions = []
    for host, node in _nodes(ctx):
        words = _lacking(ctx, host, node)
        if words:
            argv = ("kubectl", "label", "node", host.name, *words, "--overwrite")
            what = f"label the Node {host.name}, as {ctx.plugin.title} needs it: {', '.join(words)}"
            name = ctx.administrator.name
            actions.append(Action(name, what, Cmd.change(*argv, env=KUBECONFIG)))
    return actions


def plugin_label_checks(ctx: Context) -> list[Check]:
    """Return whether the Nodes that there are have the labels that the plugin needs."""
    return [
        Check.that(
            not _lacking(ctx, host, node),
            "network.labels",
            host.name,
            f"its Node has the labels that {ctx.plugin.title} needs",
            got=f"without {', '.join(_lacking(ctx, host, node))}",
            expected=", ".join(f"{k}={v}" for k, v in needed(ctx.plugin, host).items()),
            remedy="run the network stage again: it adds them",
        )
        for host, node in _nodes(ctx)
    ]


def _nodes(ctx: Context) -> list[tuple[Host, Obj]]:
    """Return the hosts on whose Nodes the plugin needs labels, those that have one.

    In a dry run before there is a cluster that is the one which init will make.
    """
    wanting = [host for host in ctx.hosts if needed(ctx.plugin, host)]
    if not wanting:
        return []
    if not ctx.facts()[ctx.administrator.name].kubeadm.initialised:
        return [(host, {}) for host in wanting if host == ctx.control_plane]
    nodes = {node["metadata"]["name"]: node for node in ctx.kube().items("/api/v1/nodes")}
    return [(host, nodes[host.name]) for host in wanting if host.name in nodes]


def _lacking(ctx: Context, host: Host, node: Obj) -> list[str]:
    has = (node.get("metadata") or {}).get("labels") or {}
    wanted = needed(ctx.plugin, host).items()
    return [f"{key}={value}" for key, value in wanted if has.get(key) != value]


def node_marks(host: Host, node: Obj | None, plugin: Plugin) -> list[Check]:
    """Return whether a Node has its labels and taints; nothing where nobody wants any."""
    if not host.labels and not host.taints and not needed(plugin, host):
        return []
    lacking = [word for words in missing(host, node, plugin) for word in words]
    return [
        Check.that(
            not lacking,
            "join.marks",
            host.name,
            "its Node has the labels and taints that are wanted",
            got=f"without {', '.join(lacking)}" if lacking else "has them",
            expected=", ".join(
                [
                    *(f"{k}={v}" for k, v in {**needed(plugin, host), **host.labels}.items()),
                    *map(str, host.taints),
                ]
            ),
            remedy="run the join stage again: it adds them",
        )
    ]


def _doer(ctx: Context, host: Host, kind: str) -> Callable[[Hands], None]:
    def do(hands: Hands) -> None:
        node = hands.kube().find(f"/api/v1/nodes/{host.name}")
        for each, _, command in _commands(host, *missing(host, node, ctx.plugin)):
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
